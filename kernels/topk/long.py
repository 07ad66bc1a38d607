"""Rows that no single program holds, in three launches whatever their number.

1. ``topk_bracket_kernel``: a sample of each row gives two thresholds that the k-th key very likely lies between.
2. ``topk_gather_kernel``: what lies above is counted, what lies between is collected.
3. ``topk_settle_kernel`` (``settle.py``): the k-th of the collected ones is the threshold, by which the row is selected
   and written. Where the sample was wrong, or too many keys lie between (rows full of ties), the whole row is searched
   instead.

The order in which candidates arrive is left to chance, what is selected is not: ties go to the lowest flat index.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.topk.keys import above_all_keys, keys_at, lowest_key
from medveil.kernels.topk.search import extent, how_many, reach

GROUP: tl.constexpr = tl.constexpr(8)  # neighbours that are sampled together: one sector of memory in fp32
DEVIATIONS: tl.constexpr = tl.constexpr(4.0)  # of the sample's count that the bracket leaves room for
ABOVE: tl.constexpr = tl.constexpr(0)  # the counters of a row
BETWEEN: tl.constexpr = tl.constexpr(1)
LOST: tl.constexpr = tl.constexpr(2)  # that may not be selected
COUNTERS: tl.constexpr = tl.constexpr(4)


@triton.jit
def topk_bracket_kernel(
    grad_ptr,
    support_ptr,
    bracket_ptr,
    counters_ptr,
    positions,
    wanted,
    C: tl.constexpr,
    ABS: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
    OUTSIDE: tl.constexpr,
    SAMPLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """bracket [N, 2]: two keys of each row, counters [N, 4] set to 0; one program per row."""
    row = tl.program_id(0)
    tl.store(counters_ptr + row * COUNTERS + tl.arange(0, COUNTERS), tl.zeros([COUNTERS], dtype=tl.int32))
    if WIDE:
        row = row.to(tl.int64)
    start = row * (C * positions)
    groups: tl.constexpr = SAMPLE // GROUP
    number = tl.arange(0, groups)
    # A place by chance in each of as many stretches: images are regular, and so would be equal distances.
    stretch = positions // groups
    chance = ((number.to(tl.uint32) * 2654435761) >> 8).to(tl.int32)
    begin = (number * stretch + chance % tl.maximum(stretch - GROUP, 1)) // GROUP * GROUP
    place = begin[:, None] + tl.arange(0, GROUP)[None, :]
    _score, sampled, _number, _allowed = keys_at(
        grad_ptr + start,
        support_ptr + start,
        place,
        place < positions,
        positions,
        C,
        ABS,
        HAS_SUPPORT,
        SCORE,
        KEY,
        OUTSIDE,
    )
    keys = (tl.reshape(sampled, [SAMPLE], can_reorder=True),)
    total = how_many(keys, OUTSIDE + 1, 1, SAMPLE, KEY, ABS)
    lowest, largest = extent(keys, 1, SAMPLE, KEY, ABS, OUTSIDE)
    expected = wanted.to(tl.float32) * SAMPLE / positions.to(tl.float32)
    low, high = lowest_key(lowest, KEY, OUTSIDE), above_all_keys(largest, KEY)
    if total > 0:
        k = tl.minimum(tl.maximum(expected.to(tl.int32), 1), total)
        near, _count = reach(keys, lowest, k, total, lowest, largest, 1, SAMPLE, KEY, ABS)
        # Neighbours are alike: how far the count may be off is read from how unlike each other the groups' counts are.
        counts = tl.sum((sampled >= near).to(tl.int32), axis=1)
        mean = tl.sum(counts, axis=0).to(tl.float32) / groups
        variance = tl.sum(counts * counts, axis=0).to(tl.float32) - groups * mean * mean
        margin = DEVIATIONS * tl.sqrt(tl.maximum(variance, 0.0)) + 4.0
        below, above = (expected + margin).to(tl.int32) + 1, (expected - margin).to(tl.int32)
        if below < total:
            low, _count = reach(keys, near, below, total, lowest, largest, 1, SAMPLE, KEY, ABS)
        if above > 0:
            high, _count = reach(keys, near, above, total, lowest, largest, 1, SAMPLE, KEY, ABS)
    tl.store(bracket_ptr + row * 2, low)
    tl.store(bracket_ptr + row * 2 + 1, high)


@triton.jit
def topk_gather_kernel(
    grad_ptr,
    support_ptr,
    bracket_ptr,
    counters_ptr,
    candidate_ptr,
    candidate_place_ptr,
    nan_flag_ptr,
    positions,
    C: tl.constexpr,
    ABS: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
    OUTSIDE: tl.constexpr,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Count what reaches the bracket's upper key, collect what lies between into candidate(_place) [N, ROOM]; grid (N,
    blocks of a row)."""
    row = tl.program_id(0)
    low, high = tl.load(bracket_ptr + row * 2), tl.load(bracket_ptr + row * 2 + 1)
    counters_ptr += row * COUNTERS
    if WIDE:
        row = row.to(tl.int64)
    start = row * (C * positions)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < positions
    _score, key, number, allowed = keys_at(
        grad_ptr + start, support_ptr + start, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY, OUTSIDE
    )
    expected = tl.minimum(positions - tl.program_id(1) * BLOCK, BLOCK)
    numbers = tl.sum(number.to(tl.int32), axis=0)
    if numbers < expected:
        tl.store(nan_flag_ptr, 1)
    known = numbers
    if HAS_SUPPORT:
        known = tl.sum(allowed.to(tl.int32), axis=0)
    if known < expected:
        tl.atomic_add(counters_ptr + LOST, expected - known, sem="relaxed")
    above = tl.sum(((key >= high) & allowed).to(tl.int32), axis=0)
    tl.atomic_add(counters_ptr + ABOVE, above, sem="relaxed")
    between = (key >= low) & (key < high) & allowed
    rank = tl.cumsum(between.to(tl.int32), axis=0)
    first = tl.atomic_add(counters_ptr + BETWEEN, tl.sum(between.to(tl.int32), axis=0), sem="relaxed")
    slot = first + rank - 1
    kept = between & (slot < ROOM)
    tl.store(candidate_ptr + row * ROOM + slot, key, mask=kept)
    tl.store(candidate_place_ptr + row * ROOM + slot, place, mask=kept)
