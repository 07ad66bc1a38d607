"""The fixed maps of each image: contour band y_c, texture region y_t and texture intensity x_t, computed once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medveil.kernels import contour_band, texture_map
from medveil.umed.config import UMedConfig

# A texture is kept as its LBP code, x_t times the largest code of the variant, so that a kept map equals a computed
# one.
_LARGEST = {"default": 255, "ror": 255, "uniform": 9}


class Maps(NamedTuple):
    """``contour`` bool [N, 1, H, W], ``texture`` float32 [N, 1, H, W] in [0, 1]."""

    contour: Tensor
    texture: Tensor


def compute(config: UMedConfig, images: Tensor, masks: Tensor) -> Maps:
    """The maps of float ``images`` [N, C, H, W] in [0, 1] with ``masks`` {0, 1} [N, 1, H, W].

    The texture map is that of the original image; outside the region of interest it is not used.
    """
    contour = band(config, masks)
    if config.texture == "none":
        texture = torch.zeros_like(contour, dtype=torch.float32)
    elif config.texture == "fixed":
        texture = torch.ones_like(contour, dtype=torch.float32)
    else:
        texture = texture_map(images, config.lbp)
    return Maps(contour, texture)


class MapCache:
    """Maps by sample index, kept as two bytes a pixel (texture and contour) while they fit in ``limit`` bytes."""

    def __init__(self, config: UMedConfig, count: int, size: tuple[int, int], limit: int = 2**31) -> None:
        self.config = config
        self._kept = 2 * count * size[0] * size[1] <= limit
        shape = (count if self._kept else 0, 1, *size)
        self._contour = torch.empty(shape, dtype=torch.bool)
        self._texture = torch.empty(shape, dtype=torch.uint8)
        self._filled = torch.zeros(count, dtype=torch.bool)

    def get(self, indices: Sequence[int], images: Tensor, masks: Tensor) -> Maps:
        """The maps of the samples ``indices``, whose ``images`` and ``masks`` are given, on their device."""
        if not self._kept:
            return compute(self.config, images, masks)
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        if not bool(self._filled[chosen].all()):
            maps = compute(self.config, images, masks)
            self._contour[chosen] = maps.contour.cpu()
            self._texture[chosen] = (maps.texture * _LARGEST[self.config.lbp]).round().to(torch.uint8).cpu()
            self._filled[chosen] = True
            return maps
        texture = self._texture[chosen].to(images.device).float() / _LARGEST[self.config.lbp]
        return Maps(self._contour[chosen].to(images.device), texture)


def band(config: UMedConfig, masks: Tensor) -> Tensor:
    """The contour band y_c, bool [N, 1, H, W]; empty where the contour perturbator is left out."""
    if config.contour == "none":
        return torch.zeros_like(masks, dtype=torch.bool)
    both = contour_band(masks, config.band)
    if config.band_side == "inner":
        return both & masks.bool()
    if config.band_side == "outer":
        return both & ~masks.bool()
    return both


def support(config: UMedConfig, masks: Tensor) -> Tensor:
    """Where UMed may change an image: the contour band and the region of interest, bool [N, 1, H, W]."""
    contour = band(config, masks)
    return contour if config.texture == "none" else contour | masks.bool()
