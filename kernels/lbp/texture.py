"""Texture intensity from Local Binary Patterns, and the grey image it is taken from."""

import torch
from torch import Tensor

from medveil.kernels.lbp.ops import local_binary_pattern
from medveil.kernels.lbp.reference import LARGEST_CODE


def grey_levels(image: Tensor) -> Tensor:
    """The grey image uint8 [N, H, W] of ``image`` [N, 1 or 3, H, W]: uint8, or floating in [0, 1] (rounded to levels).

    Colour becomes ITU-R 601 luma in 16-bit fixed point, rounded: integers, so that every device gives the same
    levels, and three equal channels give themselves. Raises ``ValueError`` for another number of channels.
    """
    if image.ndim != 4 or image.shape[1] not in (1, 3):
        raise ValueError(f"image must be [N, 1 or 3, H, W], not {list(image.shape)}")
    levels = image
    if image.dtype != torch.uint8:
        wide = image.detach().to(torch.promote_types(image.dtype, torch.float32))
        levels = (wide * 255).round().clamp(0, 255).to(torch.uint8)
    if image.shape[1] == 1:
        return levels[:, 0]
    red, green, blue = levels.int().unbind(1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768 >> 16).to(torch.uint8)


def texture_map(image: Tensor, method: str = "default") -> Tensor:
    """Texture intensity x_t float32 [N, 1, H, W] in [0, 1]: the LBP code of the grey image over the method's largest
    code.

    ``image`` [N, 1 or 3, H, W], uint8 or floating in [0, 1]. Errors as :func:`grey_levels` and
    ``local_binary_pattern``.
    """
    codes = local_binary_pattern(grey_levels(image), method=method)
    return (codes.float() / LARGEST_CODE[method]).unsqueeze(1)
