"""SALM's masked sign step on the CPU: fewer passes than the reference, in memory that is allocated once."""

import torch
from torch import Tensor

from kernels.topk import reference
from kernels.topk.bracket import LARGEST_N, kth_largest

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


def topk_masked_step(
    noise: Tensor,
    grad: Tensor,
    x: Tensor,
    fraction: float,
    step: float,
    radius: float,
    by: str,
    rank: str,
    out: Tensor,
) -> Tensor:
    """As :func:`reference.topk_masked_step` without a support, into ``out``, a block of rows at a time."""
    elements = noise[0].numel() if len(noise) else 1
    block = max(1, _BLOCK // max(1, elements))
    dense = grad.is_contiguous() and out.is_contiguous()
    plain = by == "element" and noise.dtype == grad.dtype == torch.float32 and dense
    # Memory for all blocks alike: fresh pages would cost as much as some of the passes.
    scratch = torch.empty(2, min(block, len(noise)), elements, dtype=torch.float32) if plain else None
    for start in range(0, len(noise), block):
        rows = slice(start, start + block)
        g, image, target = grad[rows], x[rows].to(noise.dtype), out[rows]
        if scratch is None:
            ranked = reference.scores(g, by, rank)
            selected = select(ranked, reference.count(fraction, ranked.shape[1]))
            selected = selected.view(g.shape[0], 1, *g.shape[2:]) if by == "pixel" else selected.view(g.shape)
            move = torch.sign(g).to(noise.dtype)
            low, high = torch.empty_like(image), torch.empty_like(image)
        else:
            first, second = scratch[:, : len(g)]
            flat = g.view(first.shape)
            ranked = torch.abs(flat, out=first) if rank == "abs" else flat
            selected = select(ranked, reference.count(fraction, elements), second, target.view(first.shape))
            low, high = first.view(g.shape), second.view(g.shape)
            move, selected = torch.sign(g, out=low), high
        torch.add(noise[rows], move.mul_(selected), alpha=-step, out=target)
        target.clamp_(-radius, radius)
        torch.neg(image, out=low)
        torch.clamp(target, low, torch.add(low, 1, out=high), out=target)
    return out
