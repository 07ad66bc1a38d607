"""AR, autoregressive noise (Sandoval-Segura et al., NeurIPS 2022): each pixel is a sum of its past neighbours."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.config import ARConfig
from medveil.baselines.model_free import ModelFree, grouped, normal
from medveil.errors import UserError
from medveil.method import MethodSettings

_PAST = [(2, 2), (2, 1), (2, 0), (1, 2), (1, 1), (1, 0), (0, 2), (0, 1)]
"""Rows up and columns left of a pixel: the 3x3 window that ends in it, without itself."""

_BORDER = 2
_DRAWS = 200
_CANDIDATES = 16
_TRIALS = 4
_KEPT_BYTES = 2**31


class AR(ModelFree):
    """A 3x3 filter per class and channel whose 8 past taps sum to 1, run over a random border that is cropped.

    The inside is linear in the border, so a filter is one matrix [H * W, border], made once per image size and class.
    """

    name: ClassVar[str] = ARConfig.name
    Config: ClassVar[type[MethodSettings]] = ARConfig

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._matrices: dict[tuple[Any, ...], Tensor] = {}

    def pattern(self, names: Sequence[str], keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
        channels, height, width = shape
        noise = torch.empty(len(names), channels, height * width, device=keys.device)
        for channel in range(channels):
            purpose = f"ar border {channel}" if self.task != "segmentation" else f"ar border {channel} {names[0]}"
            border = normal(self.config.seed, purpose, 0, keys, (border_size(height, width),))
            for name, places in grouped(names).items():
                noise[places, channel] = border[places] @ self._matrix(name, channel, height, width, keys.device).T
        return noise.view(len(names), *shape)

    def _matrix(self, name: str, channel: int, height: int, width: int, device: torch.device) -> Tensor:
        place = (name, channel, height, width, device)
        if place not in self._matrices:
            made = inside_of_border(self.taps(name, channel, height, width).to(device), height, width)
            if sum(m.nbytes for m in self._matrices.values()) + made.nbytes > _KEPT_BYTES:
                self._matrices.clear()
            self._matrices[place] = made
        return self._matrices[place]

    def taps(self, name: str, channel: int, height: int, width: int) -> Tensor:
        """The filter of class ``name``, float32 [8] in the order of the past; the first drawn that stays in bounds."""
        own = keyed.keys_of([f"{name} {channel}"])
        for draw in range(0, _DRAWS, _CANDIDATES):
            raw = torch.cat([normal(self.config.seed, "ar taps", draw + i, own, (8,)) for i in range(_CANDIDATES)])
            taps = raw / raw.sum(1, keepdim=True)
            border = normal(self.config.seed, "ar trial", draw, own, (border_size(height, width), _TRIALS))
            size = run(taps, border.expand(_CANDIDATES, -1, -1), height, width).square().mean(3).sqrt()
            size = torch.nan_to_num(size, nan=torch.inf)
            edge = size[:, -1].mean(1)
            stays = (size.flatten(1).amax(1) < self.config.growth) & (edge > 1 / self.config.growth)
            if stays.any():
                return taps[int(stays.nonzero()[0])]
        raise UserError(f"none of {_DRAWS} filters stays within growth {self.config.growth}: give a larger --growth")


def border_size(height: int, width: int) -> int:
    """Pixels of the border, two rows above and two columns left, around an inside of ``height`` x ``width``."""
    return (height + _BORDER) * (width + _BORDER) - height * width


def inside_of_border(taps: Tensor, height: int, width: int) -> Tensor:
    """The matrix float32 [height * width, border] that takes a border (rows first) to the inside under ``taps`` [8]."""
    count = border_size(height, width)
    unit = torch.eye(count, device=taps.device)
    return run(taps[None], unit[None], height, width)[0].reshape(height * width, count)


def run(taps: Tensor, border: Tensor, height: int, width: int) -> Tensor:
    """``taps`` [F, 8] run over ``border`` [F, border, K]: K insides each, float [F, height, width, K].

    A pixel needs only pixels up and left of it, so a whole anti-diagonal is filled at once.
    """
    filters, _, count = border.shape
    rows, columns = height + _BORDER, width + _BORDER
    field = border.new_zeros(filters, rows, columns, count)
    edge = torch.ones(rows, columns, dtype=torch.bool, device=border.device)
    edge[_BORDER:, _BORDER:] = False
    field[:, edge] = border
    for diagonal in range(2 * _BORDER, rows + columns - 1):
        i = torch.arange(
            max(_BORDER, diagonal - columns + 1), min(rows - 1, diagonal - _BORDER) + 1, device=border.device
        )
        j = diagonal - i
        value = torch.zeros((), device=border.device)
        for tap, (up, left) in enumerate(_PAST):
            value = value + taps[:, tap, None, None] * field[:, i - up, j - left]
        field[:, i, j] = value
    return field[:, _BORDER:, _BORDER:]
