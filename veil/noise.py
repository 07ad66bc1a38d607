"""What the noise is made of before it is bounded: a generator's output, a tile, or a picture for each class.

Each takes images float [N, C, H, W] in [0, 1] with their targets, and gives float [N, scales, C, H, W] in [-1, 1].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medveil.cells import doubled, opposed, spread
from medveil.networks import UNet
from medveil.veil.config import VeilConfig

_START = 0.1
"""Of a tile's entries before the tanh: small, so that the fit and not the draw decides their signs."""


class Learned(nn.Module):
    """A generator's output or a learned tile, in cells of ``cell`` pixels, twice and four times as many, and so on: one
    noise for each scale."""

    def __init__(self, config: VeilConfig, channels: int, cell: int) -> None:
        super().__init__()
        self.cells = doubled(cell, config.scales)
        self.channels = channels
        count = config.scales * channels
        self.net = UNet(channels, count, config.width, config.depth) if config.noise == "generator" else None
        self.tile = nn.Parameter(_START * torch.randn(count, config.tile, config.tile)) if self.net is None else None

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        if self.net is not None:
            raw = self.net(x).float().split(self.channels, 1)
            each = [_averaged(part, cells) for part, cells in zip(raw, self.cells, strict=True)]
        else:
            assert self.tile is not None
            # A tile that darkens what is dark already would only strengthen what the image itself tells.
            raw = (self.tile - self.tile.mean((1, 2), keepdim=True)).split(self.channels)
            each = [_tiled(part, cells, x) for part, cells in zip(raw, self.cells, strict=True)]
        return torch.tanh(torch.stack(each, 1))


class Fixed(nn.Module):
    """One tile for all images, at several scales; nothing is learned. ``tile``: float [channels, T, T], an entry as
    many pixels wide as each of ``cells`` in turn, and where it is given as ``colour_cell``, with opposed channels."""

    tile: Tensor

    def __init__(self, channels: int, side: int, cells: list[int], colour_cell: int | None = None) -> None:
        super().__init__()
        self.cells, self.colour_cell = cells, colour_cell
        self.register_buffer("tile", torch.zeros(channels, side, side))

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        scales = [_tiled(self.tile, cells, x) for cells in self.cells]
        if self.colour_cell is not None:
            scales.append(_tiled(self.tile * opposed(len(self.tile), x.device)[:, None, None], self.colour_cell, x))
        return torch.stack(scales, 1)


class Classwise(nn.Module):
    """A learned picture [C, H, W] of ``cells`` for each class, 0 outside of ``support`` bool [classes, C, H, W]."""

    support: Tensor

    def __init__(self, classes: int, channels: int, size: tuple[int, int], cells: int) -> None:
        super().__init__()
        self.cells, self.size = cells, size
        sides = [-(-side // cells) for side in size]
        self.picture = nn.Parameter(_START * torch.randn(classes, channels, *sides))
        self.register_buffer("support", torch.ones(classes, channels, *size, dtype=torch.bool))

    def forward(self, _: Tensor, targets: Tensor) -> Tensor:
        return (self.whole(torch.tanh(self.picture)) * self.support)[targets][:, None]

    def whole(self, cells: Tensor) -> Tensor:
        """Of what each cell of the pictures has, [classes, C, h, w], what each pixel has, [classes, C, H, W]."""
        return spread(cells, self.cells, *self.size)


def _averaged(raw: Tensor, cells: int) -> Tensor:
    """``raw`` [N, C, H, W] as its mean over squares of ``cells`` pixels, cut off at the border."""
    if cells == 1:
        return raw
    height, width = raw.shape[-2:]
    means = F.avg_pool2d(raw, (min(cells, height), min(cells, width)), ceil_mode=True)
    return spread(means, cells, height, width)


def _tiled(tile: Tensor, cells: int, x: Tensor) -> Tensor:
    """``tile`` [C, T, T], each entry a square of ``cells`` pixels, repeated to the size of ``x`` [N, C, H, W]."""
    height, width = x.shape[-2:]
    rows, columns = (-(-side // (tile.shape[-1] * cells)) for side in (height, width))
    return spread(tile.repeat(1, rows, columns), cells, height, width).expand(len(x), -1, -1, -1)
