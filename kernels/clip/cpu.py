"""UMed's adaptive clip on the CPU: the reference in fewer passes, a few samples at a time to fit the cache."""

import torch
from torch import Tensor

from medveil.kernels.clip import reference

_BLOCK = 1 << 18  # elements at a time


def _bounded(noise: Tensor, bound: Tensor, clip: str) -> tuple[Tensor, Tensor]:
    """``noise`` within +-``bound``, and in its dtype 1 where the gradient passes this clip."""
    delta = torch.minimum(torch.maximum(noise, -bound), bound)
    open_ = (bound > 0).to(noise.dtype)
    if clip == "straight-through":
        return delta, open_.expand_as(noise)
    # Comparisons into the operands' own dtype are many times faster than into bool.
    return delta, torch.eq(delta, noise, out=torch.empty_like(noise)).mul_(open_)


def _block(
    x: Tensor, noises: list[Tensor], bounds: tuple[Tensor, Tensor], clip: str, out: Tensor, packed: Tensor
) -> None:
    contour, passes_contour = _bounded(noises[0], bounds[0], clip)
    texture, passes_texture = _bounded(noises[1], bounds[1], clip)
    summed = contour.add_(texture).add_(x)
    torch.clamp(summed, 0, 1, out=out)
    if packed.numel() == 0:
        return
    bits = torch.add(passes_contour, passes_texture, alpha=2)
    if clip == "hard":
        bits.mul_(torch.eq(summed, out, out=texture))
    for group in range(packed.shape[1]):
        total = bits[:, 4 * group].clone()
        for channel in range(4 * group + 1, min(4 * group + 4, x.shape[1])):
            total.add_(bits[:, channel], alpha=4 ** (channel % 4))
        packed[:, group] = total.to(torch.int16)  # by way of int16, which is faster


def adaptive_clip(
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    maps: tuple[Tensor, Tensor, Tensor],
    eps: float,
    clip: str,
    out: Tensor,
    packed: Tensor,
) -> None:
    """Fill ``out`` and, unless it is empty, ``packed`` for the hard and the straight-through clip."""
    bounds = reference.bounds(*maps, eps, x.dtype)
    block = max(1, _BLOCK // max(1, x[0].numel() if len(x) else 1))
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        noises = [contour_noise[rows], texture_noise[rows]]
        _block(x[rows], noises, (bounds[0][rows], bounds[1][rows]), clip, out[rows], packed[rows])
