"""Exact top-k selection per sample and SALM's masked sign step in eager PyTorch.

Exactly ``floor(fraction n + 1e-9)`` of a sample's n elements are selected, zeros included; among equal scores those
at the lowest flat index come first. By pixel, n counts the positions [H, W] and a position's score is the sum over its
channels, added in fp32 (fp64 for fp64 gradients) from the first channel on.
"""

import math

import torch
from torch import Tensor


def count(fraction: float, n: int) -> int:
    """How many of n are selected; 1e-9 makes up for fractions such as 0.1 that binary cannot hold."""
    return math.floor(fraction * n + 1e-9)


class NanGradient(ValueError):
    """A gradient has values that cannot be ranked: what made it has diverged."""


def refuse_nan(sizes: Tensor) -> None:
    """:class:`NanGradient` where a row's size [N] is NaN, as its largest or mean is if one of its scores is."""
    if bool(sizes.isnan().any()):
        raise NanGradient("the gradient holds NaN (or, by pixel, infinities that cancel): nothing can be ranked")


def scores(grad: Tensor, by: str, rank: str) -> Tensor:
    """What is ranked, [N, n]: order-preserving in fp32, fp64 or int64. Raises ``ValueError`` where a score is NaN."""
    if grad.is_floating_point():
        wide = grad if grad.dtype in (torch.float32, torch.float64) else grad.float()
    else:
        wide = grad.long()
    if rank == "abs":
        wide = wide.abs()
    if by == "pixel":
        total = wide[:, 0]
        for channel in range(1, wide.shape[1]):
            total = total + wide[:, channel]
        wide = total
    ranked = wide.reshape(wide.shape[0], math.prod(wide.shape[1:]))
    if ranked.is_floating_point() and ranked.numel():
        refuse_nan(ranked.amax(1))
    return ranked


def select(ranked: Tensor, k: int) -> Tensor:
    """bool [N, n]: the k largest of each row, ties to the lowest index."""
    n = ranked.shape[1]
    if k == 0 or ranked.numel() == 0:
        return torch.zeros_like(ranked, dtype=torch.bool)
    if k == n:
        return torch.ones_like(ranked, dtype=torch.bool)
    threshold = ranked.kthvalue(n - k + 1, dim=1, keepdim=True).values
    selected = ranked >= threshold
    excess = selected.sum(1) - k
    if bool(excess.any()):  # more elements tie at the threshold than there is room for
        rows = excess.nonzero().squeeze(1)
        row, at = ranked[rows], threshold[rows]
        tied = row == at
        room = tied.sum(1, keepdim=True) - excess[rows, None]
        selected[rows] = (row > at) | (tied & (tied.cumsum(1) <= room))
    return selected


def select_within(ranked: Tensor, allowed: Tensor, k: int) -> Tensor:
    """As :func:`select` among the ``allowed`` bool [N, n] alone: min(k, how many are allowed) of each row."""
    lowest = -math.inf if ranked.is_floating_point() else torch.iinfo(ranked.dtype).min
    selected = select(ranked.masked_fill(~allowed, lowest), k) & allowed
    # Where an allowed score is itself the lowest value, an element outside may have taken its place in the tie.
    missing = allowed.sum(1, keepdim=True).clamp(max=k) - selected.sum(1, keepdim=True)
    if bool(missing.any()):
        left = allowed & ~selected
        selected |= left & (left.cumsum(1) <= missing)
    return selected


def spread(selected: Tensor, grad: Tensor, by: str) -> Tensor:
    """``selected`` [N, n] in the shape of ``grad``, over its channels by pixel."""
    if by == "pixel":
        return selected.view(grad.shape[0], 1, *grad.shape[2:]).expand(grad.shape).contiguous()
    return selected.view(grad.shape)


def topk_mask(grad: Tensor, fraction: float, by: str, rank: str) -> Tensor:
    """bool of the shape of ``grad``, contiguous."""
    ranked = scores(grad, by, rank)
    selected = select(ranked, count(fraction, ranked.shape[1]))
    return spread(selected, grad, by)


def topk_masked_step(
    noise: Tensor,
    grad: Tensor,
    x: Tensor,
    fraction: float,
    step: float,
    radius: float,
    support: Tensor | None,
    by: str,
    rank: str,
) -> Tensor:
    """The next noise, in its dtype."""
    ranked = scores(grad, by, rank)
    k = count(fraction, ranked.shape[1])
    pixels = (grad.shape[0], 1, *grad.shape[2:])
    if support is None:
        chosen = select(ranked, k).view(pixels if by == "pixel" else grad.shape)
    elif by == "pixel":
        chosen = select_within(ranked, support.any(1).view(ranked.shape), k).view(pixels) & support
    else:
        chosen = select_within(ranked, support.reshape(ranked.shape), k).view(grad.shape)
    moved = noise - step * (grad.sign() * chosen).to(noise.dtype)
    return torch.minimum(torch.maximum(moved.clamp(-radius, radius), -x), 1 - x).to(noise.dtype)
