"""AR, autoregressive noise (Sandoval-Segura et al., NeurIPS 2022): each pixel is a sum of its past neighbours."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil import keyed
from medveil.baselines.config import ARConfig
from medveil.baselines.model_free import ModelFree, grouped, normal
from medveil.errors import UserError
from medveil.method import MethodSettings

_PAST = [(2, 2), (2, 1), (2, 0), (1, 2), (1, 1), (1, 0), (0, 2), (0, 1)]
"""Rows up and columns left of a pixel: the 3x3 window that ends in it, without itself."""

_BORDER = 2
_DRAWS = 256
_CANDIDATES = 16
_TRIALS = 4
_KEPT_BYTES = 2**31
_SIDE = 32
"""Of the images that the authors measured responses on."""


class AR(ModelFree):
    """A 3x3 filter per class and channel whose 8 past taps sum to 1, run over a random border that is cropped.

    The inside is linear in the border, so a filter is one matrix [H * W, border], made once per image size and class.
    """

    name: ClassVar[str] = ARConfig.name
    Config: ClassVar[type[MethodSettings]] = ARConfig

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._matrices: dict[tuple[Any, ...], Tensor] = {}
        self._filters: dict[tuple[str, tuple[int, int, int]], Tensor] = {}

    def pattern(self, names: Sequence[str], keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
        channels, height, width = shape
        noise = torch.empty(len(names), channels, height * width, device=keys.device)
        # Inside and outside of a mask are drawn by one key, the image's: their borders are told apart by name.
        side = f" {names[0]}" if self.task == "segmentation" and names else ""
        for channel in range(channels):
            purpose = f"ar border {channel}{side}"
            border = normal(self.config.seed, purpose, 0, keys, (border_size(height, width),))
            for name, places in grouped(names).items():
                noise[places, channel] = border[places] @ self._matrix(name, channel, *shape, keys.device).T
        return noise.view(len(names), *shape)

    def _matrix(self, name: str, channel: int, channels: int, height: int, width: int, device: torch.device) -> Tensor:
        place = (name, channel, channels, height, width, device)
        if place not in self._matrices:
            taps = self.filter_of(name, (channels, height, width))[channel]
            made = inside_of_border(taps.to(device), height, width)
            if sum(m.nbytes for m in self._matrices.values()) + made.nbytes > _KEPT_BYTES:
                self._matrices.clear()
            self._matrices[place] = made
        return self._matrices[place]

    def filter_of(self, name: str, shape: tuple[int, int, int]) -> Tensor:
        """The filter of class ``name`` for images of ``shape`` (C, H, W), float32 [C, 8] in the order of the past.

        Filters are drawn class by class: the first that stays within ``growth`` and whose noise the filters of all
        classes before it answer with ``response`` at least, or, where no draw does, the one that comes closest. In a
        multi-label set, where any set of labels is a class, only its growth is tested. Raises UserError when no draw
        stays within it.
        """
        if (name, shape) not in self._filters:
            found: list[Tensor] = []
            for one in self._classes(name):
                found.append(self._drawn_filter(one, shape, found))
                self._filters[one, shape] = found[-1]
        return self._filters[name, shape]

    def _classes(self, name: str) -> list[str]:
        if self.task == "segmentation":
            return ["outside", "inside"]
        return [name] if self.task == "multilabel" else [str(number) for number in range(self.num_classes)]

    def _drawn_filter(self, name: str, shape: tuple[int, int, int], others: Sequence[Tensor]) -> Tensor:
        channels, height, width = shape
        best, most = None, -1.0
        streams = [self._stable(f"{name} {channel}") for channel in range(channels)]
        for taps in map(torch.stack, zip(*streams, strict=False)):
            noise = trial(self.config.seed, name, taps)
            least = min((response(other, noise) for other in others), default=math.inf)
            if least > most and self._stays(taps, f"{name} large", 0, height, width).all():
                best, most = taps, least
                if least >= self.config.response:
                    break
        if best is None:
            raise UserError(
                f"none of {_DRAWS} filters stays within growth {self.config.growth}: give a larger --growth"
            )
        return best

    def _stable(self, name: str) -> Iterator[Tensor]:
        """The filters drawn for a class's channel that stay in bounds on a small image, float32 [8] each."""
        own = keyed.keys_of([name])
        for draw in range(0, _DRAWS, _CANDIDATES):
            raw = torch.cat([normal(self.config.seed, "ar taps", draw + i, own, (8,)) for i in range(_CANDIDATES)])
            taps = raw / raw.sum(1, keepdim=True)
            yield from taps[self._stays(taps, name, draw, _SIDE, _SIDE)]

    def _stays(self, taps: Tensor, name: str, draw: int, height: int, width: int) -> Tensor:
        """Of which of ``taps`` [F, 8] the noise neither diverges nor dies out across an image, bool [F]."""
        border = normal(
            self.config.seed, "ar trial", draw, keyed.keys_of([name]), (border_size(height, width), _TRIALS)
        )
        size = run(taps, border.expand(len(taps), -1, -1), height, width).square().mean(3).sqrt()
        size = torch.nan_to_num(size, nan=torch.inf)
        edge = size[:, -1].mean(1)
        return (size.flatten(1).amax(1) < self.config.growth) & (edge > 1 / self.config.growth)


def trial(seed: int, name: str, taps: Tensor) -> Tensor:
    """Noise of a filter ``taps`` [C, 8] of L2 norm 1 on an image of the size that ``response`` is meant for."""
    border = normal(seed, "ar response", 0, keyed.keys_of([name]), (len(taps), border_size(_SIDE, _SIDE)))[0]
    noise = run(taps, border[:, :, None], _SIDE, _SIDE)[..., 0]
    return noise / noise.norm()


def response(taps: Tensor, noise: Tensor) -> float:
    """What the filter that ``taps`` [C, 8] cancel under answers to ``noise`` [C, H, W]: the sum of its positive part.

    That filter has the taps and -1 at the pixel itself, so the answer to a class's own noise is 0.
    """
    kernel = torch.full((1, len(taps), 3, 3), -1.0)
    for tap, (up, left) in enumerate(_PAST):
        kernel[0, :, 2 - up, 2 - left] = taps[:, tap]
    return float(F.conv2d(noise[None], kernel).relu().sum())


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
