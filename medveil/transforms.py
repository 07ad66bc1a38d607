"""Random image transforms, drawn per sample from keys and applied to a whole batch on its device."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil import keyed


class FlipShift(NamedTuple):
    """A horizontal flip and a whole-pixel shift per sample, zeros coming in at the border ("crop from padding").

    ``rows`` int64 [B, H] and ``columns`` int64 [B, W] name the source of each output row and column, -1 for none;
    ``rows_back``, ``columns_back`` are the same for the inverse map. All are [B, 0] where nothing ever moves.
    """

    rows: Tensor
    columns: Tensor
    rows_back: Tensor
    columns_back: Tensor


def crop_padding(padding: int | None, size: tuple[int, int]) -> int:
    """Pixels of padding before a random crop of images of ``size``: ``padding``, or 4 of 32 and 3 of 28 for None."""
    return min(size) // 8 if padding is None else padding


def draw_flip_shift(
    seed: int, purpose: str, step: int, keys: Tensor, size: tuple[int, int], padding: int, flip: bool = True
) -> FlipShift:
    """One transform per key: a shift of up to ``padding`` pixels along each axis, and a flip with probability 1/2."""
    if padding == 0 and not flip:
        nothing = keys.new_empty(len(keys), 0)
        return FlipShift(nothing, nothing, nothing, nothing)
    words = keyed.words(seed, purpose, step, keys, (3,))
    shifts = ((words[:, :2] * (2 * padding + 1)) >> 32) - padding
    flips = (words[:, 2] & 1).bool() & flip
    rows, rows_back = _axis(size[0], shifts[:, 0], torch.zeros_like(flips))
    columns, columns_back = _axis(size[1], shifts[:, 1], flips)
    return FlipShift(rows, columns, rows_back, columns_back)


def _axis(length: int, shift: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Source index of each output index along one axis, and the inverse map; -1 outside."""
    position = torch.arange(length, device=shift.device)[None, :]
    mirrored = torch.where(flip[:, None], length - 1 - position, position)
    forward = mirrored + shift[:, None]
    unshifted = position - shift[:, None]
    back = torch.where(flip[:, None], length - 1 - unshifted, unshifted)
    return _inside(forward, length), _inside(back, length)


def _inside(index: Tensor, length: int) -> Tensor:
    return torch.where((index >= 0) & (index < length), index, -1)


def _gather(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    inside = (rows >= 0)[:, :, None] & (columns >= 0)[:, None, :]
    index = rows.clamp_min(0)[:, :, None] * width + columns.clamp_min(0)[:, None, :]
    flat = index.reshape(batch, 1, height * width).expand(-1, channels, -1)
    taken = x.reshape(batch, channels, height * width).gather(2, flat).view(batch, channels, height, width)
    return taken * inside[:, None].to(x.dtype)


class _ApplyFlipShift(torch.autograd.Function):
    """The map moves each pixel at most once, so its adjoint is the inverse map: a gather both ways, never a scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *maps: Tensor) -> Tensor:
        ctx.save_for_backward(*maps)
        return _gather(x, maps[0], maps[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, _, rows_back, columns_back = ctx.saved_tensors
        return _gather(grad.contiguous(), rows_back, columns_back), None, None, None, None


def apply_flip_shift(x: Tensor, transform: FlipShift) -> Tensor:
    """``x`` [B, C, H, W] transformed; differentiable in ``x``."""
    if transform.rows.shape[1] == 0:
        return x
    out: Tensor = _ApplyFlipShift.apply(x, *transform)
    return out


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
    grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest" if nearest else "bilinear", align_corners=False)
