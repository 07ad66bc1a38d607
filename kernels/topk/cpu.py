"""Exact top-k selection on the CPU: a search for each row's threshold in whole-batch passes.

A threshold that exactly k elements of a row reach selects them without any further question, so it need not be the k-th
value itself: false position on the logarithm of the count finds one for most rows in about ten passes, at a fraction
of the cost of ``kthvalue`` or ``topk``. Rows where none was found (ties at the threshold, infinities) are left to the
reference.
"""

import math

import torch
from torch import Tensor

from kernels.topk import reference

_PASSES = 24
_SAMPLED = 1 << 14  # rows from this length on are sampled first
_BLOCK = 1 << 19  # elements at a time: few enough for the cache, enough to make the small operations between cheap
_LARGEST_K = 1 << 17  # fp32 tells the logarithms of neighbouring counts apart up to here


def _guesses(ranked: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Two thresholds [N, 1], which more and fewer than k elements of a row likely reach."""
    rows, n = ranked.shape
    if n < _SAMPLED:
        # Rows of one batch are alike up to their scale: the order statistics of a few, in units of their mean.
        some = ranked[:: max(1, rows // 3)]
        spread = 1.5 * math.sqrt(k * (1 - k / n)) + 1
        best = some.topk(min(math.ceil(k + spread), n), dim=1).values.sum(0) / some.mean(1).sum()
        best = best.nan_to_num(1.0)
        units = ranked.mean(1, keepdim=True)
        return units * best[-1], units * best[max(math.floor(k - spread), 0)]
    # Long rows: the order statistics of a sample two standard deviations to each side.
    sample = ranked[:, :: n // 4096]
    expected = sample.shape[1] * k / n
    spread = 2 * math.sqrt(expected * (1 - k / n)) + 1
    best = sample.topk(min(math.ceil(expected + spread) + 1, sample.shape[1]), dim=1).values
    return best[:, -1:], best[:, max(math.floor(expected - spread), 0)][:, None]


def _bracket(ranked: Tensor, k: int, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Two points [2, N, 1] (threshold, log(1 + count)) for each row: at least k elements reach the first, fewer the
    second."""
    rows, n = ranked.shape
    low, high = torch.empty(2, 2, rows, 1).unbind(0)
    low[0], low[1] = ranked.amin(1, keepdim=True), math.log1p(n)
    high[0], high[1] = ranked.amax(1, keepdim=True), 0.0
    for threshold in _guesses(ranked, k):
        torch.ge(ranked, threshold, out=reached)
        tried = torch.stack((threshold, reached.sum(1, keepdim=True).log1p_()))
        up = tried[1] > math.log1p(k - 0.5)
        low = torch.where(up & (tried[0] > low[0]), tried, low)
        high = torch.where(up | (tried[0] > high[0]), high, tried)
    return low, high


def _search(ranked: Tensor, k: int, reached: Tensor) -> tuple[Tensor, Tensor]:
    """A threshold [N, 1] for each row of fp32 [N, n], 0 < k < n, and for which of them it is wrong, bool [N, 1].

    ``reached`` [N, n] is scratch.
    """
    rows, n = ranked.shape
    low, high = _bracket(ranked, k, reached)
    tried = torch.empty_like(low)
    # Tensors, not numbers: each number would be converted anew at each use, at the price of another small operation.
    enough, exact, aim, half = torch.tensor([math.log1p(k - 0.5), math.log1p(k + 0.5), math.log1p(k + 0.3), 0.5])
    for step in range(_PASSES):
        share = torch.sub(low[1], aim).div_(low[1] - high[1]).clamp_(0, 1)
        if step % 3 == 2:  # keep clear of the ends now and then, so that both close in
            share.lerp_(half, half)
        torch.lerp(low[0], high[0], share, out=tried[0])
        torch.ge(ranked, tried[0], out=reached)
        torch.sum(reached, 1, keepdim=True, out=tried[1])
        tried[1].log1p_()
        up = tried[1] > enough
        low, high = torch.where(up, tried, low), torch.where(up, high, tried)
        # The reference takes about as long for one row of 40 as a pass takes for all.
        if step > 1 and 40 * int((low[1] > exact).sum()) <= rows + 120_000 // n:
            break
    return low[0], low[1] > exact


def select(ranked: Tensor, k: int, out: Tensor | None = None) -> Tensor:
    """As :func:`reference.select`, but as zeros and ones in fp32 [N, n], in ``out`` if given."""
    rows, n = ranked.shape
    selected = torch.empty(rows, n) if out is None else out
    if ranked.dtype != torch.float32 or not 0 < k < n or k > _LARGEST_K or rows == 0:
        return selected.copy_(reference.select(ranked, k))
    threshold, missed = _search(ranked, k, selected)
    torch.ge(ranked, threshold, out=selected)
    wrong = missed.squeeze(1).nonzero().squeeze(1)
    if len(wrong):
        selected[wrong] = reference.select(ranked[wrong], k).float()
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
    # Memory for all blocks alike: fresh pages would cost as much as some of the passes.
    plain = by == "element" and noise.dtype == grad.dtype == torch.float32 and grad.is_contiguous()
    scratch = torch.empty(2, min(block, len(noise)), elements) if plain else None
    for start in range(0, len(noise), block):
        rows = slice(start, start + block)
        g, target = grad[rows], out[rows]
        if scratch is None:
            ranked = reference.scores(g, by, rank)
            selected = select(ranked, reference.count(fraction, ranked.shape[1]))
            selected = selected.view(g.shape[0], 1, *g.shape[2:]) if by == "pixel" else selected.view(g.shape)
            move = torch.sign(g).to(noise.dtype)
        else:
            first, second = scratch[:, : len(g)]
            flat = g.view(first.shape)
            ranked = reference.scores(torch.abs(flat, out=first) if rank == "abs" else flat, "element", "signed")
            selected = select(ranked, reference.count(fraction, elements), second).view(g.shape)
            move = torch.sign(g, out=first.view(g.shape))
        torch.addcmul(noise[rows], move, selected.to(noise.dtype), value=-step, out=target)
        target.clamp_(-radius, radius)
        image = x[rows].to(noise.dtype)
        torch.maximum(target, torch.neg(image, out=move), out=target)
        torch.minimum(target, torch.add(move, 1, out=move), out=target)
    return out
