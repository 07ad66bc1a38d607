"""Local Binary Patterns of 8 neighbours at radius 1 in eager PyTorch, equal to scikit-image's on uint8 images.

Bit i is set where point i of the unit circle, counted counter-clockwise from the right, is at least as bright as the
centre. Outside the image it is black. The four diagonal points lie between pixels, 0.70711 away in each direction,
and are interpolated bilinearly in fp64.
"""

import torch
from torch import Tensor

# (row, column) of the pixel each point is on, or that its interpolation square reaches out to.
OFFSETS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
DIAGONAL = 0.70711
METHODS = ("default", "ror", "uniform")
LARGEST_CODE = {"default": 255, "ror": 255, "uniform": 9}


def _code_table(method: str) -> list[int]:
    """What ``method`` makes of each of the 256 bit patterns."""
    if method == "default":
        return list(range(256))
    if method == "ror":  # the smallest of the eight rotations
        return [min((code >> i | code << (8 - i)) & 255 for i in range(8)) for code in range(256)]
    # uniform: the number of set bits where the row of bits (its ends not joined) changes at most twice, 9 elsewhere
    bits = [[code >> i & 1 for i in range(8)] for code in range(256)]
    return [sum(b) if sum(b[i] != b[i + 1] for i in range(7)) <= 2 else 9 for b in bits]


CODE_TABLES = {method: _code_table(method) for method in METHODS}


def _fractions(start: int, count: int, sign: int, device: torch.device) -> Tensor:
    """How far past its lower pixel the point ``sign`` * 0.70711 from each of ``count`` places lies, rounded as
    there."""
    at = torch.arange(start, start + count, dtype=torch.float64, device=device) + sign * DIAGONAL
    return at - at.floor()


def bit_patterns(padded: Tensor, top: int = 0, left: int = 0) -> Tensor:
    """The eight comparisons, packed: uint8 [N, H, W] for the inside of uint8 [N, H + 2, W + 2].

    ``top`` and ``left`` are the place of the first inner pixel in its image: the rounding of a fraction depends on it.
    """
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    image = padded[:, 1:-1, 1:-1]
    levels = padded.double()
    across, down = {}, {}
    for sign in (-1, 1):
        x = _fractions(left, width, sign, padded.device)
        first = 1 + min(sign, 0)
        across[sign] = (1 - x) * levels[:, :, first : first + width] + x * levels[:, :, first + 1 : first + 1 + width]
        down[sign] = _fractions(top, height, sign, padded.device)[:, None]
    pattern = torch.zeros_like(image)
    for bit, (row, column) in enumerate(OFFSETS):
        if row and column:
            y, between, first = down[row], across[column], 1 + min(row, 0)
            point = (1 - y) * between[:, first : first + height] + y * between[:, first + 1 : first + 1 + height]
            at_least = point >= levels[:, 1:-1, 1:-1]
        else:
            at_least = padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width] >= image
        pattern += at_least.to(torch.uint8) * (1 << bit)
    return pattern


def local_binary_pattern(image: Tensor, method: str) -> Tensor:
    """Codes uint8 [N, H, W] of uint8 [N, H, W]."""
    padded = image.new_zeros(image.shape[0], image.shape[1] + 2, image.shape[2] + 2)
    padded[:, 1:-1, 1:-1] = image
    table = torch.tensor(CODE_TABLES[method], dtype=torch.uint8, device=image.device)
    return table[bit_patterns(padded).int()]
