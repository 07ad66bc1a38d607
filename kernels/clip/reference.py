"""UMed's adaptive clip in eager PyTorch.

    delta_c = clip(F_c y_c, -eps, +eps)                                                          (Eq. 4)
    delta_t = clip(F_t, -eps x_t y_t, +eps x_t y_t)                                              (Eq. 5)
    x_p     = clip(x + delta_c + delta_t, 0, 1)                                                  (Eq. 6)

Three ways to the same bound b (eps y_c for the contour, eps x_t y_t for the texture):

    hard              clip(F, -b, b); the gradient is 1 inside the bound and 0 beyond
    tanh              b tanh(F / eps): smooth, 0 where the bound is 0
    straight-through  clip(F, -b, b) forward; backward as if nothing were clipped (b > 0), the last clip included
"""

from typing import NamedTuple

import torch
from torch import Tensor

CLIPS = ("hard", "tanh", "straight-through")


class Inputs(NamedTuple):
    """What forward and the backward pass of the tanh clip start from, in the order of the operators' schemas.

    Image and noises [N, C, H, W] of one dtype; mask and maps [N, 1, H, W], a map that is None being computed.
    """

    x: Tensor
    contour_noise: Tensor
    texture_noise: Tensor
    mask: Tensor
    contour: Tensor | None
    roi: Tensor | None
    texture: Tensor | None
    eps: float
    band: int
    lbp: str


def contour_band(mask: Tensor, radius: int) -> Tensor:
    """The band around the contour of ``mask`` [N, 1, H, W] (uint8 or bool, nonzero = foreground): bool [N, 1, H, W].

    Dilation minus erosion with a square of side 2 radius + 1. What lies outside the image counts neither as
    foreground nor as background: a region cut by the image's edge has no contour along that edge. Radius 0 gives an
    empty band.
    """
    if radius < 0:
        raise ValueError(f"the band's radius must be 0 or more, not {radius}")
    # Foreground (bit 0) and background (bit 1) both lie within reach of a pixel of the band, i.e. in both dilations.
    # A square of radius r is r times one of radius 1, and that one is a row of three after a column of three.
    reach = 2 - (mask != 0).to(torch.uint8)
    for _ in range(radius):
        across = reach.clone()
        across[..., 1:] |= reach[..., :-1]
        across[..., :-1] |= reach[..., 1:]
        reach = across.clone()
        reach[..., 1:, :] |= across[..., :-1, :]
        reach[..., :-1, :] |= across[..., 1:, :]
    return reach == 3


def bounds(contour: Tensor, roi: Tensor, texture: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The bounds of the two noises, [N, 1, H, W] in ``dtype``."""
    return eps * contour.to(dtype), eps * texture.to(dtype) * roi.to(dtype)


def squash(noise: Tensor, bound: Tensor, eps: float, clip: str) -> Tensor:
    """``noise`` within +-``bound``."""
    if clip == "tanh":
        return bound * torch.tanh(noise / eps)
    return torch.minimum(torch.maximum(noise, -bound), bound)


def squash_grad(noise: Tensor, bound: Tensor, eps: float, clip: str) -> Tensor:
    """The derivative of :func:`squash` in ``noise``."""
    if clip == "tanh":
        return bound / eps * (1 - torch.tanh(noise / eps) ** 2)
    passing = bound > 0 if clip == "straight-through" else (noise.abs() <= bound) & (bound > 0)
    return passing.to(noise.dtype)


def adaptive_clip(
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    contour: Tensor,
    roi: Tensor,
    texture: Tensor,
    eps: float,
    clip: str,
) -> Tensor:
    """x_p [N, C, H, W] from maps given as [N, 1, H, W]."""
    contour_bound, texture_bound = bounds(contour, roi, texture, eps, x.dtype)
    delta = squash(contour_noise, contour_bound, eps, clip) + squash(texture_noise, texture_bound, eps, clip)
    return (x + delta).clamp(0, 1)


def adaptive_clip_backward(
    grad: Tensor,
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    contour: Tensor,
    roi: Tensor,
    texture: Tensor,
    eps: float,
    clip: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of the two noises, everything else recomputed."""
    contour_bound, texture_bound = bounds(contour, roi, texture, eps, x.dtype)
    if clip != "straight-through":
        delta = squash(contour_noise, contour_bound, eps, clip) + squash(texture_noise, texture_bound, eps, clip)
        summed = x + delta
        grad = grad * ((summed >= 0) & (summed <= 1)).to(grad.dtype)
    return (
        grad * squash_grad(contour_noise, contour_bound, eps, clip),
        grad * squash_grad(texture_noise, texture_bound, eps, clip),
    )
