"""Local Binary Patterns on the CPU: few passes over small types instead of fp64 interpolation at every pixel.

A diagonal point is ``u u diagonal + u v (neighbour_1 + neighbour_2) + v v centre`` with u = .70711 and v = .29289, so
it is at least the centre when ``u (diagonal - centre) + v (neighbour_1 + neighbour_2 - 2 centre) >= 0``. For
differences of 8-bit levels u / v may be replaced by 39555 / 16384: the sign stays the same, zeros included (tested
for every pair), and fp32 holds every term exactly. The sum is zero only where the diagonal equals the centre and the
neighbours lie k above and k below. Then fp64 rounding decides: in rows and columns 2..511 the answer is always "at
least"; the others are computed in fp64 as the reference does (which makes larger images slower).
"""

import torch
from torch import Tensor

from kernels.lbp import reference
from kernels.lbp.reference import CODE_TABLES, OFFSETS

TIES_HOLD = (2, 512)  # the rows and columns where every tie counts as "at least as bright"
_RATIO = 39555 / 16384
_CHUNK = 1 << 17  # pixels at a time, so that the intermediate arrays stay in the cache


class _Patterns:
    """Raw bit patterns of a padded image laid out in one row, chunk by chunk, in arrays that are allocated once."""

    def __init__(self, stride: int, length: int) -> None:
        self.stride = stride
        self.level = torch.empty(length + 2 * stride + 2)  # a chunk and what surrounds it
        self.outer = torch.empty(length + 2 * stride)
        self.need, self.reached, self.diagonals = torch.empty(3, length).unbind(0)
        self.narrow = torch.empty(length, dtype=torch.int16)
        self.bit = torch.empty(length, dtype=torch.uint8)

    def __call__(self, flat: Tensor, first: int, last: int, pattern: Tensor) -> None:
        """Fill ``pattern`` [last - first] for the places first..last of ``flat``; every tie counts as set."""
        length, stride = last - first, self.stride
        around = flat[first - stride - 1 : last + stride + 1]
        image = around[stride + 1 : stride + 1 + length]
        level, outer = self.level[: length + 2 * stride + 2], self.outer[: length + 2 * stride]
        need, reached, diagonals = (of[:length] for of in (self.need, self.reached, self.diagonals))
        level.copy_((around ^ 128).view(torch.int8))  # less 128, so that every sum below is exact in fp32
        centre = level[stride + 1 : stride + 1 + length]
        diagonals.zero_()
        for column in (1, -1):
            # What a vertical neighbour and the diagonal beside it come to, and what they must reach.
            torch.add(level[1:-1], level[1 + column : len(level) - 1 + column], alpha=_RATIO, out=outer)
            torch.mul(centre, _RATIO + 2, out=need)
            need.sub_(level[stride + 1 + column : stride + 1 + column + length])
            for row in (-1, 1):
                torch.ge(outer[(1 + row) * stride : (1 + row) * stride + length], need, out=reached)
                diagonals.add_(reached, alpha=1 << OFFSETS.index((row, column)))
        # fp32 to uint8 directly is several times slower than by way of int16.
        pattern.copy_(self.narrow[:length].copy_(diagonals))
        bit = self.bit[:length]
        for index in (0, 2, 4, 6):
            row, column = OFFSETS[index]
            start = (1 + row) * stride + 1 + column
            torch.ge(around[start : start + length], image, out=bit)
            pattern.add_(bit, alpha=1 << index)


def _exactly(padded: Tensor, pattern: Tensor, rows: slice, columns: slice) -> None:
    """Replace one region of ``pattern`` [N, H, W] by what fp64 gives."""
    region = pattern[:, rows, columns]
    if region.numel() == 0:
        return
    around = padded[:, rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    if region.shape[2] < region.shape[1]:  # the long side goes last in memory
        around = around.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    region.copy_(reference.bit_patterns(around, rows.start, columns.start))


def local_binary_pattern(image: Tensor, method: str) -> Tensor:
    """Codes uint8 [N, H, W] of uint8 [N, H, W]."""
    count, height, width = image.shape
    if image.numel() == 0:
        return torch.empty_like(image, memory_format=torch.contiguous_format)
    stride = width + 2
    padded = image.new_zeros(count, height + 2, stride)
    padded[:, 1:-1, 1:-1] = image
    flat = padded.view(-1)
    # Patterns at every place from the first pixel's to the last's, the padding between included, then cropped.
    first, last = stride + 1, flat.numel() - stride - 1
    whole = torch.empty_like(flat)
    patterns = _Patterns(stride, min(_CHUNK, last - first))
    for begin in range(first, last, _CHUNK):
        end = min(begin + _CHUNK, last)
        patterns(flat, begin, end, whole[begin:end])
    pattern = whole.view(padded.shape)[:, 1:-1, 1:-1].contiguous()
    low, high = TIES_HOLD
    _exactly(padded, pattern, slice(0, min(low, height)), slice(0, width))
    _exactly(padded, pattern, slice(low, height), slice(0, min(low, width)))
    _exactly(padded, pattern, slice(high, height), slice(low, width))
    _exactly(padded, pattern, slice(low, min(high, height)), slice(high, width))
    if method == "default":
        return pattern
    table = torch.tensor(CODE_TABLES[method], dtype=torch.uint8)
    return torch.index_select(table, 0, pattern.view(-1).int()).view(pattern.shape)
