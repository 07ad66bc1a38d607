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


def _bracket(ranked: Tensor, k: int, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Two points [2, N, 1] (threshold, log(1 + count)) for each row: at least k elements reach the first, fewer the
    second."""
    rows, n = ranked.shape
    low, high = torch.empty(2, 2, rows, 1).unbind(0)
    low[0], low[1] = ranked.amin(1, keepdim=True), math.log1p(n)
    high[0], high[1] = ranked.amax(1, keepdim=True), 0.0
    if n < _SAMPLED:
        return low, high
    # Long rows: the order statistics of a sample two standard deviations to each side, where they prove right.
    sample = ranked[:, :: n // 4096]
    expected = sample.shape[1] * k / n
    spread = 2 * math.sqrt(expected * (1 - k / n)) + 1
    best = sample.topk(min(math.ceil(expected + spread) + 1, sample.shape[1]), dim=1).values
    for place in (best.shape[1] - 1, max(math.floor(expected - spread), 0)):
        threshold = best[:, place : place + 1]
        torch.ge(ranked, threshold, out=reached)
        tried = torch.stack((threshold, reached.sum(1, keepdim=True).log1p_()))
        up = tried[1] > math.log1p(k - 0.5)
        low, high = torch.where(up, tried, low), torch.where(up, high, tried)
    return low, high


def _search(ranked: Tensor, k: int, reached: Tensor) -> Tensor:
    """A threshold [N, 1] for each row of fp32 [N, n], 0 < k < n, right for most; ``reached`` [N, n] is scratch."""
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
        if step > 6 and 40 * int((low[1] > exact).sum()) <= rows + 120_000 // n:
            break
    return low[0]


def select(ranked: Tensor, k: int) -> Tensor:
    """As :func:`reference.select`, but as zeros and ones in fp32 [N, n]."""
    rows, n = ranked.shape
    selected = torch.empty(rows, n)
    if ranked.dtype != torch.float32 or not 0 < k < n or k > _LARGEST_K or rows == 0:
        return selected.copy_(reference.select(ranked, k))
    torch.ge(ranked, _search(ranked, k, selected), out=selected)
    wrong = (selected.sum(1) != k).nonzero().squeeze(1)
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
    block = max(1, _BLOCK // max(1, noise[0].numel() if len(noise) else 1))
    for start in range(0, len(noise), block):
        rows = slice(start, start + block)
        g, target = grad[rows], out[rows]
        ranked = reference.scores(g, by, rank)
        selected = select(ranked, reference.count(fraction, ranked.shape[1]))
        selected = selected.view(g.shape[0], 1, *g.shape[2:]) if by == "pixel" else selected.view(g.shape)
        move = torch.sign(g).to(noise.dtype)
        move.mul_(selected)
        torch.add(noise[rows], move, alpha=-step, out=target)
        target.clamp_(-radius, radius)
        image = x[rows].to(noise.dtype)
        torch.maximum(target, torch.neg(image, out=move), out=target)
        torch.minimum(target, torch.add(move, 1, out=move), out=target)
    return out
