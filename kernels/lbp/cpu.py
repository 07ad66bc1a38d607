"""Local Binary Patterns on the CPU: few passes over small types instead of fp64 interpolation at every pixel.

A diagonal point is ``u u diagonal + u v (neighbour_1 + neighbour_2) + v v centre`` with u = .70711 and v = .29289, so
it is at least the centre when ``u (diagonal - centre) + v (neighbour_1 + neighbour_2 - 2 centre) >= 0``. For
differences of 8-bit levels u / v may be replaced by 39555 / 16384: the sign stays the same, zeros included (tested
for every pair), and fp32 holds every term exactly. The sum is zero only where the diagonal equals the centre and the
neighbours lie k above and k below. Then fp64 rounding decides: for k = 0 and in rows and columns 2..511 the answer is
always "at least"; the others are looked for and computed in fp64 as the reference does.
"""

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medveil.kernels.lbp.reference import CODE_TABLES, DIAGONAL, OFFSETS

TIES_HOLD = (2, 512)  # the rows and columns where every tie counts as "at least as bright"
_RATIO = 39555 / 16384
_CHUNK = 1 << 17  # pixels at a time, so that the intermediate arrays stay in the cache
_TABLES = {method: bytes(table) for method, table in CODE_TABLES.items()}


class _Patterns:
    """Raw bit patterns of ``length`` places at a time of a padded image laid out in one row.

    All arrays and their parts are made once: made for each chunk, they would take longer than the arithmetic. NumPy
    compares to booleans several times faster than PyTorch does, which in turn adds multiples in one pass.
    """

    def __init__(self, stride: int, length: int) -> None:
        self.reach = stride + 1  # how far back and ahead the neighbours lie
        self.around = torch.empty(length + 2 * self.reach, dtype=torch.int8)
        self.level = torch.empty(length + 2 * self.reach, dtype=torch.float32)
        self.outer = torch.empty(length + 2 * stride, dtype=torch.float32)
        self.scaled, self.need = torch.empty(2, length, dtype=torch.float32).unbind(0)
        self.bits = torch.empty(8, length, dtype=torch.uint8)
        bits = list(self.bits.numpy().view(bool))

        def moved(of: Tensor, by: int) -> Tensor:
            return of[self.reach + by : self.reach + by + length]

        self.centre = moved(self.level, 0)
        # By column: the column's levels throughout and beside each place; where which diagonals' bits go.
        self.columns = [
            (
                self.level[1 + column : 1 + column + length + 2 * stride],
                moved(self.level, column),
                self.outer.numpy()[:length],
                bits[OFFSETS.index((-1, column))],
                self.outer.numpy()[2 * stride :],
                bits[OFFSETS.index((1, column))],
            )
            for column in (1, -1)
        ]
        self.straight = [
            (moved(self.around, row * stride + column).numpy(), bits[index])
            for index, (row, column) in enumerate(OFFSETS)
            if not (row and column)
        ]
        self.image = moved(self.around, 0).numpy()

    def __call__(self, around: Tensor, pattern: Tensor) -> None:
        """Fill ``pattern`` [length] for int8 levels less 128 [reach + length + reach]; every tie counts as set."""
        self.around.copy_(around)
        self.level.copy_(self.around)
        torch.mul(self.centre, _RATIO + 2, out=self.scaled)
        need = self.need.numpy()
        for column, beside, above, bit_above, below, bit_below in self.columns:
            # What a vertical neighbour and the diagonal beside it come to, and what they must reach.
            torch.add(self.level[1:-1], column, alpha=_RATIO, out=self.outer)
            torch.sub(self.scaled, beside, out=self.need)
            np.greater_equal(above, need, out=bit_above)
            np.greater_equal(below, need, out=bit_below)
        for neighbour, bit in self.straight:
            np.greater_equal(neighbour, self.image, out=bit)
        self.bits[:4].add_(self.bits[4:], alpha=16)
        self.bits[:2].add_(self.bits[2:4], alpha=4)
        torch.add(self.bits[0], self.bits[1], alpha=2, out=pattern)


_kept = threading.local()


def _patterns(stride: int, length: int) -> _Patterns:
    """One that the next call of this thread for images of the same size uses again: its 3 MB would be fresh pages at
    each call otherwise."""
    if getattr(_kept, "size", None) != (stride, length):
        with torch.inference_mode(False):  # what is made in that mode cannot be written to outside
            _kept.size, _kept.patterns = (stride, length), _Patterns(stride, length)
    patterns: _Patterns = _kept.patterns
    return patterns


def _fraction(at: NDArray[np.int64], sign: int) -> NDArray[np.float64]:
    """How far past its lower pixel the point ``sign`` * 0.70711 from each place lies, rounded as in the reference."""
    point = at + sign * DIAGONAL
    fraction: NDArray[np.float64] = point - np.floor(point)
    return fraction


def _settle_ties(padded: NDArray[np.int8], pattern: NDArray[np.uint8], rows: slice, columns: slice) -> None:
    """Clear the bits in one region of ``pattern`` [N, H, W] where neighbours lie k != 0 above and below the centre and
    fp64 rounds the point to below it. ``padded`` holds levels less 128."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if min(height, width) <= 0:
        return
    around = padded[:, rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    if width < height:  # the long side goes last in memory
        around = np.ascontiguousarray(around.transpose(2, 0, 1)).transpose(1, 2, 0)

    def moved(row: int, column: int) -> NDArray[np.int8]:
        return around[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    centre = moved(0, 0)
    twice = centre + centre
    for index in (1, 3, 5, 7):
        row, column = OFFSETS[index]
        beside, above, diagonal = moved(0, column), moved(row, 0), moved(row, column)
        # Sums are modulo 256: they find a few places too many, which does no harm.
        tied = (diagonal == centre) & (above != centre) & (above + beside == twice)
        if not tied.any():
            continue
        place = image, down, across = np.nonzero(tied)
        down, across = down + rows.start, across + columns.start
        x, y = _fraction(across, column), _fraction(down, row)
        levels = [of[place] + 128.0 for of in (centre, beside, above, diagonal)]
        near, far = ((1 - x) * left + x * right for left, right in (levels[:2][::column], levels[2:][::column]))
        upper, lower = (near, far)[::row]
        darker = (1 - y) * upper + y * lower < levels[0]
        pattern[image[darker], down[darker], across[darker]] &= 255 - (1 << index)


def local_binary_pattern(image: Tensor, method: str) -> Tensor:
    """Codes uint8 [N, H, W] of uint8 [N, H, W]."""
    count, height, width = image.shape
    if image.numel() == 0:
        return torch.empty_like(image, memory_format=torch.contiguous_format)
    stride = width + 2
    # Levels less 128, so that every sum is exact in fp32.
    padded = torch.full((count, height + 2, stride), -128, dtype=torch.int8)
    padded[:, 1:-1, 1:-1] = (image ^ 128).view(torch.int8)
    flat = padded.view(-1)
    # Patterns at every place from the first pixel's to the last's, the padding between included, then cropped.
    first, last = stride + 1, flat.numel() - stride - 1
    whole = torch.empty_like(flat, dtype=torch.uint8)
    length = min(_CHUNK, last - first)
    patterns = _patterns(stride, length)
    for begin in range(first, last, length):
        begin = min(begin, last - length)  # the last chunk overlaps the one before
        patterns(flat[begin - first : begin + length + first], whole[begin : begin + length])
    pattern = whole.view(padded.shape)[:, 1:-1, 1:-1].contiguous()
    low, high = TIES_HOLD
    for rows, columns in (
        (slice(0, min(low, height)), slice(0, width)),
        (slice(low, height), slice(0, min(low, width))),
        (slice(high, height), slice(low, width)),
        (slice(low, min(high, height)), slice(high, width)),
    ):
        _settle_ties(padded.numpy(), pattern.numpy(), rows, columns)
    if method == "default":
        return pattern
    codes = bytearray(pattern.numpy()).translate(_TABLES[method])
    return torch.frombuffer(codes, dtype=torch.uint8).view(pattern.shape)
