"""The fixed maps of each image: contour band y_c, texture region y_t and texture intensity x_t, computed once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil.kernels import contour_band, texture_map
from medveil.kernels.lbp import grey_levels
from medveil.umed.config import UMedConfig

# A texture is kept as a whole number, x_t times the largest code of its kind, so that a kept map equals a computed one.
_LARGEST = {"default": 255, "ror": 255, "uniform": 9}
_NEIGHBOURS = 8


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
    elif config.texture == "lbp":
        texture = texture_map(images, config.lbp)
    else:
        texture = contrast_map(images, config.noise_level)
    return Maps(contour, texture)


def contrast_map(images: Tensor, noise_level: int) -> Tensor:
    """The share of a pixel's 8 neighbours whose grey level differs by more than ``noise_level``, float32 [N, 1, H, W].

    0 in flat areas and high in rough ones; the count of the local ternary pattern's non-zero digits (Tan and Triggs,
    2010). ``images`` [N, 1 or 3, H, W], uint8 or floating in [0, 1]; beyond the border they are as at it.
    """
    grey = grey_levels(images).to(torch.int16)
    height, width = grey.shape[-2:]
    around = F.pad(grey[:, None].float(), (1, 1, 1, 1), mode="replicate").to(torch.int16)[:, 0]
    count = torch.zeros_like(grey, dtype=torch.uint8)
    for row in range(3):
        for column in range(3):
            beside = around[:, row : row + height, column : column + width]
            count += (beside - grey).abs() > noise_level
    return count[:, None].float() / _NEIGHBOURS


class MapCache:
    """Maps by sample index, kept on ``device`` as two bytes a pixel (texture and contour) while they fit in ``limit``
    bytes."""

    def __init__(
        self,
        config: UMedConfig,
        count: int,
        size: tuple[int, int],
        limit: int = 2**31,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.largest = _LARGEST[config.lbp] if config.texture == "lbp" else _NEIGHBOURS
        self._kept = 2 * count * size[0] * size[1] <= limit
        shape = (count if self._kept else 0, 1, *size)
        self._contour = torch.empty(shape, dtype=torch.bool, device=device)
        self._texture = torch.empty(shape, dtype=torch.uint8, device=device)
        self._filled = torch.zeros(count, dtype=torch.bool)  # asked by the host

    def get(self, indices: Sequence[int], images: Tensor, masks: Tensor) -> Maps:
        """The maps of the samples ``indices``, whose ``images`` and ``masks`` are given, on their device."""
        if not self._kept:
            return compute(self.config, images, masks)
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        there = chosen.to(self._contour.device, non_blocking=True)
        if not bool(self._filled[chosen].all()):
            maps = compute(self.config, images, masks)
            texture = (maps.texture * self.largest).round().to(torch.uint8)
            self._contour[there], self._texture[there] = maps.contour.to(there.device), texture.to(there.device)
            self._filled[chosen] = True
            return maps
        texture = self._texture[there].to(images.device).float() / self.largest
        return Maps(self._contour[there].to(images.device), texture)


def band(config: UMedConfig, masks: Tensor) -> Tensor:
    """The contour band y_c, bool [N, 1, H, W].

    It is drawn where the contour perturbator is left out too: y_t stays the rest of the mask (Table 5, E and F).
    """
    both = contour_band(masks, config.band)
    if config.band_side == "inner":
        return both & masks.bool()
    if config.band_side == "outer":
        return both & ~masks.bool()
    return both


def support(config: UMedConfig, masks: Tensor) -> Tensor:
    """Where UMed may change an image, bool [N, 1, H, W]: the contour band and the rest of the region of interest."""
    contour = band(config, masks)
    if config.texture == "none":
        return contour
    inside = masks.bool() & ~contour
    return inside if config.contour == "none" else contour | inside
