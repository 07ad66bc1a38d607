"""SALM's masked sign step on the CPU: fewer passes than the reference, in memory that is allocated once."""

import math

import torch
from torch import Tensor

from medveil.kernels.topk import reference
from medveil.kernels.topk.bracket import LARGEST_N, kth_largest

_BLOCK = 1 << 21  # elements at a time: enough to make the small operations between cheap


def select(ranked: Tensor, k: int, out: Tensor | None = None, scratch: Tensor | None = None) -> Tensor:
    """As :func:`reference.select`, but as zeros and ones in fp32 [N, n], in ``out`` if given; ``scratch``, of that
    shape too, is overwritten. Raises ``ValueError`` where a row holds NaN."""
    rows, n = ranked.shape
    selected = torch.empty(rows, n, dtype=torch.float32) if out is None else out
    if ranked.dtype != torch.float32 or not 0 < k < n or n > LARGEST_N or rows == 0:
        if ranked.is_floating_point() and ranked.numel():
            reference.refuse_nan(ranked.amax(1))
        return selected.copy_(reference.select(ranked, k))
    ranked = ranked.detach()
    kth, surplus = kth_largest(ranked, k, selected, torch.empty_like(selected) if scratch is None else scratch)
    torch.ge(ranked, torch.from_numpy(kth), out=selected)
    selected.view(-1)[torch.from_numpy(surplus)] = 0
    return selected


def topk_mask(grad: Tensor, fraction: float, by: str, rank: str) -> Tensor:
    """As :func:`reference.topk_mask`."""
    ranked = reference.scores(grad, by, rank)
    selected = select(ranked, reference.count(fraction, ranked.shape[1])).bool()
    return reference.spread(selected, grad, by)


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
    """As :func:`reference.topk_masked_step`, in the layout of ``noise``."""
    out, grad = torch.empty_like(noise), grad.contiguous()
    fp32 = noise.dtype == grad.dtype == x.dtype == torch.float32
    if support is not None or by == "pixel" or not fp32 or not out.is_contiguous():
        return out.copy_(reference.topk_masked_step(noise, grad, x, fraction, step, radius, support, by, rank))
    elements = math.prod(grad.shape[1:])
    block = max(1, _BLOCK // max(1, elements))
    # Memory for all blocks alike: fresh pages would cost as much as some of the passes.
    scratch = torch.empty(2, min(block, len(noise)), elements, dtype=torch.float32)
    for start in range(0, len(noise), block):
        rows = slice(start, start + block)
        g, image, target = grad[rows], x[rows], out[rows]
        low, high = scratch[:, : len(g)].view(2, *g.shape)
        flat, sizes, free = g.view(len(g), elements), low.view(len(g), elements), target.view(len(g), elements)
        ranked = torch.abs(flat, out=sizes) if rank == "abs" else flat
        select(ranked, reference.count(fraction, elements), high.view(len(g), elements), free)
        move = torch.sign(g, out=low).mul_(high)
        torch.add(noise[rows], move, alpha=-step, out=target).clamp_(-radius, radius)
        torch.neg(image, out=low)
        torch.clamp(target, low, torch.add(low, 1, out=high), out=target)
    return out
