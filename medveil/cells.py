"""Cells: squares of pixels that share one value, and signs that change from one to the next."""

import torch
from torch import Tensor


def doubled(cell: int, scales: int) -> list[int]:
    """The sides of the cells of each scale, in pixels: ``cell``, twice and four times as many, and so on."""
    return [cell * 2**scale for scale in range(scales)]


def opposed(channels: int, device: torch.device) -> Tensor:
    """+1 and -1 in turn, float32 [channels]: in RGB green against red and blue, which hardly changes the brightness.

    Colour is smooth in photographs: coarse cells of it stand out where such cells of grey are one more shade.
    """
    return turns(torch.arange(channels, device=device), 1)


def turns(places: Tensor, cell: int) -> Tensor:
    """+1 and -1 in turn along ``places`` (whole numbers from 0 on), ``cell`` of each; float32 of their shape."""
    return 1.0 - 2.0 * ((places // cell) % 2)


def regular(pattern: str, height: int, width: int, cell: int, device: torch.device) -> Tensor:
    """+1 and -1 in turn, every ``cell`` pixels: down the ``rows``, along the ``columns``, or along both as a
    ``checkerboard``; float32 [height, width]."""
    rows = turns(torch.arange(height, device=device), cell)[:, None]
    columns = turns(torch.arange(width, device=device), cell)
    if pattern == "rows":
        return rows.expand(height, width)
    return columns.expand(height, width) if pattern == "columns" else rows * columns


def spread(values: Tensor, cell: int, height: int, width: int) -> Tensor:
    """``values`` [..., h, w] of cells of ``cell`` pixels as what each pixel has, [..., height, width], cut off at the
    border."""
    # A cell may be larger than the image, and is cut off before it takes memory.
    rows = values[..., : -(-height // cell), : -(-width // cell)].repeat_interleave(min(cell, height), -2)
    return rows.repeat_interleave(min(cell, width), -1)[..., :height, :width]
