"""Rows that one program holds in registers: selection and step in one launch, ties to the lowest flat index."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.topk.apply import apply
from medveil.kernels.topk.keys import key_of, keys_at
from medveil.kernels.topk.search import extent, first_of_tie, how_many, reach


@triton.jit
def topk_row_kernel(
    grad_ptr,
    noise_ptr,
    x_ptr,
    support_ptr,
    out_ptr,
    nan_flag_ptr,
    positions,
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
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program per row of C * positions elements (C > 1: ranked by pixel), in TILES blocks of TILE places."""
    row = tl.program_id(0)
    if WIDE:
        row = row.to(tl.int64)
    start = row * (C * positions)
    grad_ptr += start
    noise_ptr += start
    x_ptr += start
    support_ptr += start
    out_ptr += start
    keys, free = (), ()
    numbers = tl.zeros([TILE], dtype=tl.int32)
    counted = tl.zeros([TILE], dtype=tl.int32)
    size = tl.zeros([TILE], dtype=tl.float32)
    for tile in tl.static_range(TILES):
        place = tile * TILE + tl.arange(0, TILE)
        inside = place < positions if tile == TILES - 1 else place >= 0  # only the last block has an end
        score, key, number, allowed = keys_at(
            grad_ptr, support_ptr, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY, OUTSIDE
        )
        keys, free = keys + (key,), free + (allowed,)
        numbers += number.to(tl.int32)
        counted += allowed.to(tl.int32)
        if tl.int32 == KEY and ABS:
            size += tl.where(allowed, score, 0.0)
    known = tl.sum(numbers, axis=0)
    if known < positions:
        tl.store(nan_flag_ptr, 1)
    total = tl.sum(counted, axis=0) if HAS_SUPPORT else known
    k = tl.minimum(total, wanted)
    lowest, largest = extent(keys, TILES, TILE, KEY, ABS, OUTSIDE)
    first = lowest
    if tl.int32 == KEY and ABS:  # where the k-th of so many lies if they fall off exponentially
        fall = tl.log(total.to(tl.float32) / tl.maximum(k, 1).to(tl.float32))
        first = key_of(tl.sum(size, axis=0) / total.to(tl.float32) * fall, KEY, ABS)
    low, count = largest + 1, k  # nothing reaches that
    if k > 0:
        low, count = reach(keys, first, k, total, lowest, largest, TILES, TILE, KEY, ABS)
    room, before = k, k * 0  # how many of a tie at the threshold are taken, and how many there are in earlier blocks
    if count > k:
        room = k - how_many(keys, low + 1, TILES, TILE, KEY, ABS)
    for tile in tl.static_range(TILES):
        place = tile * TILE + tl.arange(0, TILE)
        inside = place < positions if tile == TILES - 1 else place >= 0
        key = keys[tile]
        chosen = key >= low
        if tl.int64 == KEY:
            chosen = chosen & free[tile] & (k > 0)
        if count > k:
            chosen, before = first_of_tie(chosen, key, low, room, before)
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
