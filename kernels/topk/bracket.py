"""The k-th largest value of each row on the CPU: bracket it between two thresholds, and sort what lies between.

A threshold is guessed for each row, and moved by as much as the count of the elements that reach it is off. A little to
either side of it lie the thresholds of the bracket; where counting proves it right, the k-th value is among the few
elements between, which are collected from all rows at once and sorted, at a fraction of the cost of ``kthvalue`` or
``topk``. Where too many brackets are wrong, false position on the logarithm of the count mends them. The rest (rows
full of ties, infinities) is partitioned.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medveil.kernels.topk.reference import refuse_nan

FEW = 1 << 17  # elements in all, up to which partitioning takes less time than the many small operations of a guess
LARGEST_N = 1 << 24  # sums in fp32 count exactly up to here
_PASSES = 24
_SAMPLED = 1 << 14  # rows from this length on are sampled first

Values = NDArray[np.float32]
Counts = NDArray[np.int64]


class Point(NamedTuple):
    """A threshold [N, 1] for each row, and how many elements of the row reach it, [N, 1]; both fp32."""

    at: Tensor
    reached: Tensor

    def where(self, here: Tensor, other: "Point") -> "Point":
        """This point in the rows that are ``here`` [N, 1], ``other`` in the rest."""
        return Point(torch.where(here, self.at, other.at), torch.where(here, self.reached, other.reached))


def _point(ranked: Tensor, threshold: Tensor, reach: Tensor) -> Point:
    """The point at ``threshold`` [N, 1]; ``reach`` fp32 [N, n] is 1 where an element reaches it, else 0."""
    # Comparing into fp32 and adding that up is many times faster than into bool.
    torch.ge(ranked, threshold, out=reach)
    return Point(threshold, reach.sum(1, keepdim=True))


def _guess(ranked: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A threshold [N, 1] near each row's k-th value, and by how much neighbours in rank differ there, [N, 1]."""
    rows, n = ranked.shape
    # Rows of one batch are alike up to their scale: the order statistics of a few, in units of their mean size. Long
    # rows: those of a sample of each.
    alike = n < _SAMPLED
    some = ranked[:: max(1, rows // 3)] if alike else ranked[:, :: n // 4096]
    share = some.shape[1] / n
    expected = min(max(round(k * share), 1), some.shape[1])
    reach = math.ceil(1.5 * math.sqrt(expected * (1 - k / n))) + 1
    below, above = min(expected + reach, some.shape[1]), max(expected - reach, 1)
    best = some.topk(below, dim=1).values[:, [expected - 1, above - 1, below - 1]]
    if alike:
        sizes = ranked.abs() if bool((some < 0).any()) else ranked
        size = sizes.mean(1, keepdim=True)
        refuse_nan(size)
        best = size * (best.sum(0) / some.abs().mean(1).sum()).nan_to_num(1.0)
    else:
        refuse_nan(ranked.amax(1))
    return best[:, :1], (best[:, 1:2] - best[:, 2:]) * (share / max(below - above, 1))


def _holds(low: Point, high: Point, k: int, n: int) -> Tensor:
    """Which rows' k-th value lies between the two points, with few enough others to be sorted: bool [N, 1]."""
    few = low.reached - high.reached <= 64 + n // 16
    return (low.reached >= k) & (high.reached < k) & few & high.at.isfinite()


def _bracketed(ranked: Tensor, k: int, below: Tensor, above: Tensor) -> tuple[Point, Point, Tensor]:
    """Two points, and bool [N, 1] in which rows the k-th value lies between them: in all but a few. ``below`` and
    ``above`` fp32 [N, n] then say what reaches them."""
    rows, n = ranked.shape
    # Partitioning takes about as long for one row of 40 as a pass takes for all.
    enough = rows - (rows + 120_000 // n) // 40
    threshold, step = _guess(ranked, k)
    off = _point(ranked, threshold, below).reached - k
    threshold = threshold + off * step
    off = off.abs()
    # Chance, neighbours that differ by more or less than expected, and gradients of bf16, whose neighbours are ties.
    margin = step * (3 + 3 * off.sqrt() + off / 3) + threshold.abs() / 128
    low, high = _point(ranked, threshold - margin, below), _point(ranked, threshold + margin, above)
    held = _holds(low, high, k, n)
    settled = int(held.sum())
    if settled >= enough:
        return low, high, held
    # What a wrong bracket says of the other side is kept; the smallest and the largest element do for the rest.
    least, most = ranked.amin(1, keepdim=True), ranked.amax(1, keepdim=True)
    all_ = Point(least, torch.full_like(least, n))
    none = Point(most.nextafter(torch.full_like(most, math.inf)), torch.zeros_like(most))
    low, high = (
        high.where(high.reached >= k, low.where(low.reached >= k, all_)),
        low.where(low.reached < k, high.where(high.reached < k, none)),
    )
    for passes in range(_PASSES):
        most, least = low.reached.log1p(), high.reached.log1p()
        share = ((most - math.log1p(k)) / (most - least)).clamp_(0, 1)
        if passes % 3 == 2:  # keep clear of the ends now and then, so that both close in
            share = (share + 0.5) / 2
        tried = _point(ranked, torch.lerp(low.at, high.at, share), below)
        up = tried.reached >= k
        low, high = tried.where(up, low), high.where(up, tried)
        held = _holds(low, high, k, n)
        before, settled = settled, int(held.sum())
        if settled >= enough or (passes > 5 and 40 * (settled - before) < rows):  # rows full of ties never settle
            break
    for point, reach in ((low, below), (high, above)):
        torch.ge(ranked, point.at, out=reach)
    return low, high, held


def _places(flags: NDArray[np.bool_]) -> Counts:
    """The flat indices of the few ``flags`` that are set: ``np.flatnonzero``, but eight at a time at first."""
    if flags.size % 8:
        return np.flatnonzero(flags)
    words = flags.reshape(-1).view(np.int64)
    some = np.flatnonzero(words != 0)
    within = np.flatnonzero(words[some].view(np.bool_))
    return some[within >> 3] * 8 + (within & 7)


def _last_ties(row: Counts, place: Counts, room: Counts) -> Counts:
    """Of the ``place`` s in ``row`` s [T], in order, those behind the first ``room`` [N] of each row."""
    count = np.bincount(row, minlength=len(room))
    behind = np.cumsum(count)[row] - 1 - np.arange(len(row))
    return place[behind < (count - room)[row]]


def _sorted_between(values: Values, between: NDArray[np.bool_], sizes: Counts, rank: Counts) -> tuple[Values, Counts]:
    """The ``rank``-th largest [N, 1] of each row's elements that are ``between``, and the flat indices of those that
    reach it in the last places of a tie, beyond ``rank``.

    ``sizes`` and ``rank`` are [N]; ``sizes`` says how many elements of a row are between.
    """
    rows = len(values)
    width = int(sizes.max()) + 1
    ordered = np.full((rows, width), -np.inf, np.float32)
    row = np.repeat(np.arange(rows), sizes)
    place = _places(between)
    some = values.reshape(-1)[place]  # twice as fast as values[between]
    ordered.reshape(-1)[np.arange(len(row)) + (np.arange(rows) * width - np.cumsum(sizes) + sizes)[row]] = some
    ordered.sort(axis=1)
    at = width - rank[:, None]
    kth, following = np.take_along_axis(ordered, at, 1), np.take_along_axis(ordered, at - 1, 1)
    if not (kth == following).any():
        return kth, place[:0]
    mine = kth[row, 0]
    equal, greater = some == mine, np.bincount(row[some > mine], minlength=rows)
    return kth, _last_ties(row[equal], place[equal], rank - greater)


def _partitioned(values: Values, k: int) -> tuple[Values, Counts]:
    """As :func:`kth_largest`, whatever the rows hold but NaN."""
    n = values.shape[1]
    kth = np.partition(values, n - k, axis=1)[:, n - k : n - k + 1]
    equal, greater = np.flatnonzero(values == kth), np.count_nonzero(values > kth, axis=1)
    return kth, _last_ties(equal // n, equal, k - greater)


def kth_largest(ranked: Tensor, k: int, below: Tensor, above: Tensor) -> tuple[Values, Counts]:
    """The k-th largest value [N, 1] of each row of fp32 [N, n], and the flat indices of the elements that reach it
    beyond the first k of their row: the last places of ties. 0 < k < n <= LARGEST_N.

    ``below`` and ``above``, fp32 [N, n], are overwritten. Raises ``ValueError`` where a row holds NaN.
    """
    rows, n = ranked.shape
    values = ranked.numpy()
    if rows * n <= FEW:
        refuse_nan(ranked.amax(1))
        return _partitioned(values, k)
    low, high, held = _bracketed(ranked, k, below, above)
    between = np.not_equal(below.numpy(), above.numpy())
    rest = np.flatnonzero(~held.numpy())
    between[rest] = False  # nothing is collected of rows that are given up
    sizes = torch.where(held, low.reached - high.reached, 0).long().squeeze(1)
    rank = torch.where(held, k - high.reached, 1).long().squeeze(1)
    kth, surplus = _sorted_between(values, between, sizes.numpy(), rank.numpy())
    if len(rest):
        kth[rest], more = _partitioned(values[rest], k)
        surplus = np.concatenate([surplus, rest[more // n] * n + more % n])
    return kth, surplus
