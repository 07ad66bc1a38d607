"""Random words and the flips and shifts that they mean, in eager PyTorch: the specification, and what the CPU runs.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in integer tensor
arithmetic.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four 32-bit words (in int64 tensors) for each four-word counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # The products may wrap to negative; the masks take back the unsigned halves.
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def philox_words(keys: Tensor, steps: Tensor, low: int, high: int, count: int) -> Tensor:
    """int64 [S, N, count]: the words of block 0, 1, ... of each step and key, under the generator's key (low, high)."""
    blocks = torch.arange(-(-count // 4), dtype=torch.int64, device=keys.device)
    counter = torch.broadcast_tensors(
        blocks,
        (steps & _MASK)[:, None, None],
        (keys & _MASK)[:, None],
        ((keys >> 32) & _MASK)[:, None],
    )
    return torch.stack(philox(list(counter), (low, high)), dim=-1).flatten(2)[:, :, :count].contiguous()


def _axis(length: int, shift: Tensor, flip: Tensor, back: bool) -> Tensor:
    """Source index [T, length] of each output index along one axis, or the inverse map; -1 outside."""
    position = torch.arange(length, device=shift.device)[None, :]
    if back:
        position = position - shift[:, None]
    index = torch.where(flip[:, None], length - 1 - position, position)
    if not back:
        index = index + shift[:, None]
    return torch.where((index >= 0) & (index < length), index, -1)


def _moved(x: Tensor, words: Tensor, padding: int, flip: bool, back: bool) -> Tensor:
    """``x`` [T, C, H, W], each image moved by its own words, or moved back."""
    count, channels, height, width = x.shape
    shifts = ((words[:, :2] * (2 * padding + 1)) >> 32) - padding
    flips = (words[:, 2] & 1).bool() & flip
    rows = _axis(height, shifts[:, 0], torch.zeros_like(flips), back)
    columns = _axis(width, shifts[:, 1], flips, back)
    inside = (rows >= 0)[:, :, None] & (columns >= 0)[:, None, :]
    index = rows.clamp_min(0)[:, :, None] * width + columns.clamp_min(0)[:, None, :]
    flat = index.reshape(count, 1, height * width).expand(-1, channels, -1)
    taken = x.reshape(count, channels, height * width).gather(2, flat).view(count, channels, height, width)
    return taken * inside[:, None].to(x.dtype)


def flip_shift(x: Tensor, words: Tensor, padding: int, flip: bool) -> Tensor:
    """The T / N images [T, C, H, W] that come of each of ``x`` [N, C, H, W], next to each other."""
    draws = len(words) // max(1, len(x))
    each = x if draws == 1 else x[:, None].expand(-1, draws, -1, -1, -1).flatten(0, 1)
    return _moved(each, words, padding, flip, False)


def flip_shift_backward(grad: Tensor, words: Tensor, samples: int, padding: int, flip: bool) -> Tensor:
    """The gradient [N, C, H, W] of ``samples`` images. The map moves each pixel at most once, so its adjoint is the
    inverse map: a gather both ways, never a scatter."""
    moved = _moved(grad.contiguous(), words, padding, flip, True)
    return moved if len(words) == samples else moved.view(samples, -1, *grad.shape[1:]).sum(1)
