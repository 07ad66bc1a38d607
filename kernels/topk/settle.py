"""The last of the three launches for long rows (``long.py``): the threshold is found among a row's candidates, and the
row is selected and written."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.topk.apply import apply
from medveil.kernels.topk.keys import above_all_keys, key_of, keys_at, lowest_key, score_of
from medveil.kernels.topk.long import ABOVE, BETWEEN, COUNTERS, LOST
from medveil.kernels.topk.search import first_of_tie, how_many, middle_of, reach


@triton.jit
def _count_row(
    grad_ptr,
    support_ptr,
    threshold,
    end,
    positions,
    C: tl.constexpr,
    ABS: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
    OUTSIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """How many of the row's first ``end`` places reach ``threshold``, and how many equal it."""
    reached, equal = end * 0, end * 0
    for first in range(0, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        _score, key, _number, allowed = keys_at(
            grad_ptr, support_ptr, place, place < end, positions, C, ABS, HAS_SUPPORT, SCORE, KEY, OUTSIDE
        )
        reached += tl.sum(((key >= threshold) & allowed).to(tl.int32), axis=0)
        equal += tl.sum(((key == threshold) & allowed).to(tl.int32), axis=0)
    return reached, equal


@triton.jit
def topk_settle_kernel(
    grad_ptr,
    noise_ptr,
    x_ptr,
    support_ptr,
    out_ptr,
    bracket_ptr,
    counters_ptr,
    candidate_ptr,
    candidate_place_ptr,
    positions,
    each,
    wanted,
    step: tl.float64,
    radius: tl.float64,
    C: tl.constexpr,
    ABS: tl.constexpr,
    STEP: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
    ACC: tl.constexpr,
    OUTSIDE: tl.constexpr,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Select and write ``each`` blocks of a row; grid (N, programs of a row)."""
    row = tl.program_id(0)
    low, high = tl.load(bracket_ptr + row * 2), tl.load(bracket_ptr + row * 2 + 1)
    above = tl.load(counters_ptr + row * COUNTERS + ABOVE)
    between = tl.load(counters_ptr + row * COUNTERS + BETWEEN)
    total = positions - tl.load(counters_ptr + row * COUNTERS + LOST)
    if WIDE:
        row = row.to(tl.int64)
    start = row * (C * positions)
    grad_ptr += start
    noise_ptr += start
    x_ptr += start
    support_ptr += start
    out_ptr += start
    candidate_ptr += row * ROOM
    candidate_place_ptr += row * ROOM
    k = tl.minimum(total, wanted)
    first = tl.program_id(1) * (each * BLOCK)
    # How many reach the threshold, and how many of a tie at it are taken and lie before this program's places.
    threshold, count, room, before = lowest_key(low, KEY, OUTSIDE), total, k, k * 0
    if k < total:
        slot = tl.arange(0, ROOM)
        held = (above < k) & (k <= above + between) & (between <= ROOM)
        if held:
            keys = (tl.where(slot < between, tl.load(candidate_ptr + slot), OUTSIDE),)  # a mask would split the load
            share = (k - above).to(tl.float32) / between.to(tl.float32)
            if tl.int32 == KEY:
                ends = score_of(low, ABS), score_of(high, ABS)
                near = key_of(ends[1] + (ends[0] - ends[1]) * share, KEY, ABS)
            else:
                near = low
            threshold, count = reach(keys, near, k - above, between, low, high - 1, 1, ROOM, KEY, ABS)
            count += above
            if count > k:
                room = k - above - how_many(keys, threshold + 1, 1, ROOM, KEY, ABS)
                earlier = tl.load(candidate_place_ptr + slot) < first
                before = tl.sum(((keys[0] == threshold) & earlier & (slot < between)).to(tl.int32), axis=0)
        else:
            # What is known of the bracket says on which side of it, or where in it, to search.
            end, beyond = high, above
            if above >= k:
                threshold, count, end, beyond = high, above, above_all_keys(high, KEY), k * 0
            elif above + between < k:
                end, beyond = low, above + between
            else:
                threshold, count = low, above + between
            while (count > k) & (threshold < end - 1):
                middle = middle_of(threshold, end)
                reached, _equal = _count_row(
                    grad_ptr,
                    support_ptr,
                    middle,
                    positions,
                    positions,
                    C,
                    ABS,
                    HAS_SUPPORT,
                    SCORE,
                    KEY,
                    OUTSIDE,
                    BLOCK,
                )
                up = reached >= k
                threshold, count = tl.where(up, middle, threshold), tl.where(up, reached, count)
                end, beyond = tl.where(up, end, middle), tl.where(up, beyond, reached)
            if count > k:
                room = k - beyond
                _reached, before = _count_row(
                    grad_ptr,
                    support_ptr,
                    threshold,
                    tl.minimum(first, positions),
                    positions,
                    C,
                    ABS,
                    HAS_SUPPORT,
                    SCORE,
                    KEY,
                    OUTSIDE,
                    BLOCK,
                )
    for block in range(each):
        place = first + block * BLOCK + tl.arange(0, BLOCK)
        inside = place < positions
        _score, key, _number, allowed = keys_at(
            grad_ptr, support_ptr, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY, OUTSIDE
        )
        chosen = (key >= threshold) & allowed & (place < tl.where(k > 0, positions, 0))
        if count > k:
            chosen, before = first_of_tie(chosen, key, threshold, room, before)
        apply(
            chosen,
            grad_ptr,
            noise_ptr,
            x_ptr,
            support_ptr,
            out_ptr,
            place,
            inside,
            positions,
            step,
            radius,
            C,
            STEP,
            HAS_SUPPORT,
            ACC,
        )
