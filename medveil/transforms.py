"""Random image transforms, drawn per sample from keys and applied to a whole batch on its device."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil import keyed
from medveil.kernels import flip_shift


class FlipShift(NamedTuple):
    """A horizontal flip and a whole-pixel shift per sample, zeros coming in at the border ("crop from padding").

    ``words`` int64 [B, 3] say where to, as :func:`medveil.kernels.flip_shift` reads them.
    """

    words: Tensor
    padding: int
    flip: bool


def crop_padding(padding: int | None, size: tuple[int, int]) -> int:
    """Pixels of padding before a random crop of images of ``size``: ``padding``, or 4 of 32 and 3 of 28 for None."""
    return min(size) // 8 if padding is None else padding


def draw_flip_shift(seed: int, purpose: str, step: int, keys: Tensor, padding: int, flip: bool = True) -> FlipShift:
    """One transform per key: a shift of up to ``padding`` pixels along each axis, and a flip with probability 1/2."""
    return FlipShift(keyed.words(seed, purpose, step, keys, (3,)), padding, flip)


def apply_flip_shift(x: Tensor, transform: FlipShift) -> Tensor:
    """``x`` [N, C, H, W] transformed, differentiable in ``x``: as many images [B, C, H, W] as there are transforms, B /
    N of each sample next to each other."""
    words, padding, flip = transform
    if padding == 0 and not flip:
        draws = len(words) // max(1, len(x))
        return x if draws == 1 else x[:, None].expand(-1, draws, -1, -1, -1).flatten(0, 1)
    return flip_shift(x, words, padding, flip)


def draw_affine(
    seed: int, purpose: str, step: int, keys: Tensor, shift: float = 0.1, scale: float = 0.1, flips: bool = True
) -> Tensor:
    """Affine maps float32 [B, 2, 3] for :func:`apply_affine`: flips along both axes, a shift of up to ``shift`` of the
    image's side and a scaling by up to ``1 +- scale``."""
    u = keyed.uniform(seed, purpose, step, keys, (5,))
    signs = torch.where((u[:, :2] < 0.5) & flips, -1.0, 1.0)
    zoom = 1 + scale * (2 * u[:, 2] - 1)
    moves = 2 * shift * (2 * u[:, 3:] - 1)
    theta = torch.zeros(len(keys), 2, 3, device=keys.device)
    theta[:, 0, 0] = signs[:, 0] * zoom
    theta[:, 1, 1] = signs[:, 1] * zoom
    theta[:, :, 2] = moves
    return theta


def apply_affine(x: Tensor, theta: Tensor, nearest: bool = False) -> Tensor:
    """``x`` float [B, C, H, W] resampled (bilinear, or nearest for masks), zeros outside; differentiable in ``x``."""
    if len(x) == 0:  # a process's share of a batch that is smaller than the processes are many; torch refuses it
        return x
    grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest" if nearest else "bilinear", align_corners=False)
