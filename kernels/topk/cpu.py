"""Exact top-k selection on the CPU: bracket each row's k-th value between two thresholds, and sort what lies between.

Two thresholds are guessed for each row: one that a few more than k of its elements reach, one that a few less do. Where
counting proves the guess right, the k-th value is among the elements between, which are collected from all rows at once
and sorted, at a fraction of the cost of ``kthvalue`` or ``topk``. Where too many guesses are wrong, false position on
the logarithm of the count mends them. The rest (rows full of ties, infinities) is left to the reference.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.topk import reference

_FEW = 1 << 17  # elements in all, up to which partitioning takes less time than the many small operations of a guess
_PASSES = 24
_SAMPLED = 1 << 14  # rows from this length on are sampled first
_BLOCK = 1 << 21  # elements at a time: enough to make the small operations between cheap
_DEVIATIONS = 3  # between a guess and the rank it is for: seldom wrong, and little to sort
_LARGEST_N = 1 << 24  # sums in fp32 count exactly up to here

Values = NDArray[np.float32]
Flags = NDArray[np.bool_]


def _guesses(ranked: Tensor, k: int, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """Two thresholds [N, 1] that likely lie on either side of a row's k-th value."""
    rows, n = ranked.shape
    if n < _SAMPLED:
        # Rows of one batch are alike up to their scale: the order statistics of a few, in units of their mean size.
        some = ranked[:: max(1, rows // 3)]
        spread = _DEVIATIONS * math.sqrt(k * (1 - k / n)) + 1
        best = some.topk(min(math.ceil(k + spread), n), dim=1).values.sum(0) / some.abs().mean(1).sum()
        best = best.nan_to_num(1.0)
        sizes = torch.abs(ranked, out=scratch) if bool((some < 0).any()) else ranked
        units = sizes.mean(1, keepdim=True)
        return units * best[-1], units * best[max(math.floor(k - spread), 0)]
    # Long rows: the order statistics of a sample.
    sample = ranked[:, :: n // 4096]
    expected = sample.shape[1] * k / n
    spread = _DEVIATIONS * math.sqrt(expected * (1 - k / n)) + 1
    best = sample.topk(min(math.ceil(expected + spread) + 1, sample.shape[1]), dim=1).values
    return best[:, -1:], best[:, max(math.floor(expected - spread), 0)][:, None]


def _partitioned(values: Values, k: int) -> Values:
    """The k-th largest value [N, 1] of each row, 0 < k < n."""
    at = values.shape[1] - k
    return np.partition(values, at, axis=1)[:, at : at + 1]


def _counted(flags: Flags) -> NDArray[np.int64]:
    """How many of each row [N, n], contiguous, are set: [N]."""
    rows, n = flags.shape
    if n % 8:
        return np.count_nonzero(flags, axis=1)
    # Eight flags a word: up to 255 words can be added before a byte overflows.
    words = flags.view(np.int64)
    sums = np.add.reduceat(words, np.arange(0, words.shape[1], 255), axis=1)
    return sums.view(np.uint8).reshape(rows, -1).sum(1, dtype=np.int64)


def _sorted_between(values: Values, between: Flags, sizes: NDArray[np.int64], rank: NDArray[np.int64]) -> Values:
    """The ``rank``-th largest [N, 1] of each row's elements that are ``between``, ``sizes`` [N] of them."""
    rows = len(values)
    width = max(int(sizes.max()), 1)
    ordered = np.full((rows, width), -np.inf, np.float32)
    starts = np.cumsum(sizes) - sizes
    place = np.arange(int(sizes.sum())) + np.repeat(np.arange(rows) * width - starts, sizes)
    # Twice as fast as values[between].
    ordered.reshape(-1)[place] = values.reshape(-1)[np.flatnonzero(between)]
    ordered.sort(axis=1)
    kth: Values = np.take_along_axis(ordered, width - rank, 1)
    return kth


def _point(values: Values, threshold: Tensor, reach: Flags) -> Tensor:
    """``threshold`` [N, 1] and how many elements of its row ``reach`` it, which is set: [2, N, 1]."""
    # In NumPy, where comparing to booleans and finding them are several times faster.
    np.greater_equal(values, threshold.numpy(), out=reach)
    return torch.stack((threshold, torch.from_numpy(_counted(reach)).to(threshold.dtype).unsqueeze(1)))


def _holds(low: Tensor, high: Tensor, k: int, n: int) -> Tensor:
    """Which rows' k-th value lies between the two points, with few enough others to be sorted: bool [N, 1]."""
    return (low[1] >= k) & (high[1] < k) & (low[1] - high[1] <= 64 + n // 16) & high[0].isfinite()


def _bracket(ranked: Tensor, k: int, scratch: Tensor, flags: Flags) -> tuple[Tensor, Tensor]:
    """Two points [2, N, 1] (threshold, count) for each row, between which the k-th value lies in all but a few rows.

    ``flags`` [2, N, n] then say which elements reach them; ``scratch`` fp32 [N, n], whose memory they may share, is
    overwritten.
    """
    rows, n = ranked.shape
    values = ranked.numpy()
    # The reference takes about as long for one row of 40 as a pass takes for all.
    enough = rows - (rows + 120_000 // n) // 40
    low, high = (_point(values, guess, reach) for guess, reach in zip(_guesses(ranked, k, scratch), flags, strict=True))
    settled = int(_holds(low, high, k, n).sum())
    if settled >= enough:
        return low, high
    # What a wrong guess says of the other side is kept; the smallest and the largest element do for the rest.
    least, most = ranked.amin(1, keepdim=True), ranked.amax(1, keepdim=True)
    all_ = torch.stack((least, torch.full_like(least, n)))
    none = torch.stack((most.nextafter(torch.full_like(most, math.inf)), torch.zeros_like(most)))
    low, high = (
        torch.where(high[1] >= k, high, torch.where(low[1] >= k, low, all_)),
        torch.where(low[1] < k, low, torch.where(high[1] < k, high, none)),
    )
    for step in range(_PASSES):
        most, least = low[1].log1p(), high[1].log1p()
        share = ((most - math.log1p(k)) / (most - least)).clamp_(0, 1)
        if step % 3 == 2:  # keep clear of the ends now and then, so that both close in
            share = (share + 0.5) / 2
        tried = _point(values, torch.lerp(low[0], high[0], share), flags[0])
        up = tried[1] >= k
        low, high = torch.where(up, tried, low), torch.where(up, high, tried)
        before, settled = settled, int(_holds(low, high, k, n).sum())
        if settled >= enough or (step > 5 and 40 * (settled - before) < rows):  # rows full of ties never settle
            break
    for point, reach in zip((low, high), flags, strict=True):
        np.greater_equal(values, point[0].numpy(), out=reach)
    return low, high


def _kth(ranked: Tensor, k: int, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """The k-th largest value [N, 1] of each row of fp32 [N, n], 0 < k < n, and bool [N], where it was found.

    ``scratch`` fp32 [N, n] is overwritten.
    """
    rows, n = ranked.shape
    ranked = ranked.detach()
    values = ranked.numpy()
    if rows * n <= _FEW:
        return torch.from_numpy(_partitioned(values, k)), torch.ones(rows, dtype=torch.bool)
    flags = scratch.numpy().reshape(-1).view(bool)[: 2 * rows * n].reshape(2, rows, n)
    low, high = _bracket(ranked, k, scratch, flags)
    held = _holds(low, high, k, n)
    between = np.not_equal(flags[0], flags[1], out=flags[0])
    between[~held.squeeze(1).numpy()] = False  # nothing is collected of rows that are given up
    sizes = torch.where(held, low[1] - high[1], 0).long().squeeze(1)
    rank = torch.where(held, k - high[1], 1).long()
    kth = _sorted_between(values, between, sizes.numpy(), rank.numpy())
    return torch.from_numpy(kth), held.squeeze(1)


def select(ranked: Tensor, k: int, out: Tensor | None = None) -> Tensor:
    """As :func:`reference.select`, but as zeros and ones in fp32 [N, n], in ``out`` if given."""
    rows, n = ranked.shape
    selected = torch.empty(rows, n, dtype=torch.float32) if out is None else out
    if ranked.dtype != torch.float32 or not 0 < k < n or n > _LARGEST_N or rows == 0:
        return selected.copy_(reference.select(ranked, k))
    kth, found = _kth(ranked, k, selected)
    torch.ge(ranked, kth, out=selected)
    tied = (found & (selected.sum(1) != k)).nonzero().squeeze(1)
    if len(tied):
        selected[tied] = reference.reaching(ranked[tied], kth[tied], k).float()
    rest = (~found).nonzero().squeeze(1)
    if len(rest):
        selected[rest] = reference.select(ranked[rest], k).float()
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
    scratch = torch.empty(2, min(block, len(noise)), elements, dtype=torch.float32) if plain else None
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
        torch.add(noise[rows], move.mul_(selected), alpha=-step, out=target)
        target.clamp_(-radius, radius)
        image = x[rows].to(noise.dtype)
        torch.maximum(target, torch.neg(image, out=move), out=target)
        torch.minimum(target, torch.add(move, 1, out=move), out=target)
    return out
