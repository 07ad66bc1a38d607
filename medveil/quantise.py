"""From floating protected images to the bytes that are released."""

import torch
from torch import Tensor


def whole_levels(radius: float) -> int:
    """The whole grey levels within a bound on the [0, 1] scale: 4/255 -> 4, 0.01 -> 2 (a saved byte may not exceed
    it).
    """
    return int(radius * 255 + 1e-6)


def to_unit(images: Tensor) -> Tensor:
    """uint8 grey levels as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def quantise(protected: Tensor, original: Tensor, levels: int | None) -> Tensor:
    """The released image, uint8, nearest to ``protected`` (float in [0, 1]) within ``levels`` grey levels of
    ``original`` (uint8).
    """
    noise = torch.round(protected.to(torch.float32) * 255).to(torch.int16) - original.to(torch.int16)
    if levels is not None:
        noise = noise.clamp(-levels, levels)
    return (original.to(torch.int16) + noise).clamp(0, 255).to(torch.uint8)
