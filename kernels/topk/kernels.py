"""Exact top-k selection and the masked sign step in Triton.

Scores become integer keys of the same order (the bits of |g|, or of g with negative numbers flipped), so the
threshold is found exactly. Rows that fit into registers: one program per row, bisection on the key until exactly k
elements are reached or the k-th key is pinned down. Long rows: several programs per row build histograms of the key,
eight bits per pass. Ties go to the lowest flat index: elements at the threshold are counted from the front. A NaN is
never selected and raises a flag.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def _ordered(score, KEY: tl.constexpr):
    """Integer keys in the order of the scores; floating scores that are NaN get some key."""
    if score.dtype.is_floating():
        bits = (score + 0.0).to(KEY, bitcast=True)  # -0 becomes +0
        largest: tl.constexpr = 0x7FFFFFFF if tl.int32 == KEY else 0x7FFFFFFFFFFFFFFF
        bits = tl.where(bits < 0, bits ^ largest, bits)
    else:
        bits = score.to(KEY)
    return bits


@triton.jit
def _row_score(grad_ptr, place, inside, positions, C: tl.constexpr, ABS: tl.constexpr, SCORE: tl.constexpr):
    """What is ranked at each place: the element, or (C > 1) the sum over its channels from the first on."""
    score = tl.load(grad_ptr + place, mask=inside, other=0).to(SCORE)
    if ABS:
        score = tl.abs(score)
    for channel in tl.static_range(1, C):
        more = tl.load(grad_ptr + channel * positions + place, mask=inside, other=0).to(SCORE)
        if ABS:
            more = tl.abs(more)
        score = score + more
    return score


@triton.jit
def _apply(
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
    C: tl.constexpr,
    STEP: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write the mask, or with STEP the next noise, of the places of one row."""
    for channel in tl.static_range(C):
        at = channel * positions + place
        if STEP:
            taken = chosen
            if HAS_SUPPORT:
                taken = taken & (tl.load(support_ptr + at, mask=inside, other=0) != 0)
            grad = tl.load(grad_ptr + at, mask=inside, other=0)
            noise = tl.load(noise_ptr + at, mask=inside, other=0).to(ACC)
            image = tl.load(x_ptr + at, mask=inside, other=0).to(ACC)
            size, bound = (
                tl.full(place.shape, step, tl.float64).to(ACC),
                tl.full(place.shape, radius, tl.float64).to(ACC),
            )
            move = tl.where(grad > 0, size, tl.where(grad < 0, -size, 0.0))
            moved = noise - tl.where(taken, move, 0.0)
            moved = tl.minimum(tl.maximum(moved, -bound), bound)
            moved = tl.minimum(tl.maximum(moved, -image), 1.0 - image)
            tl.store(out_ptr + at, moved, mask=inside)
        else:
            tl.store(out_ptr + at, chosen.to(tl.uint8), mask=inside)


@triton.jit
def _keys(
    grad_ptr,
    support_ptr,
    place,
    inside,
    positions,
    C: tl.constexpr,
    ABS: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
):
    """Keys of the places, and which may be selected (inside, in the support, not NaN)."""
    score = _row_score(grad_ptr, place, inside, positions, C, ABS, SCORE)
    nan = inside & (score != score)
    allowed = inside & (score == score)
    if HAS_SUPPORT:
        within = tl.load(support_ptr + place, mask=inside, other=0) != 0
        for channel in tl.static_range(1, C):
            within = within | (tl.load(support_ptr + channel * positions + place, mask=inside, other=0) != 0)
        allowed = allowed & within
    return _ordered(score, KEY), allowed, nan


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
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program per row of C * positions elements (C > 1: ranked by pixel)."""
    row = tl.program_id(0)
    if WIDE:
        row = row.to(tl.int64)
    start = row * (C * positions)
    grad_ptr += start
    noise_ptr += start
    x_ptr += start
    support_ptr += start
    out_ptr += start
    place = tl.arange(0, BLOCK)
    inside = place < positions
    key, allowed, nan = _keys(grad_ptr, support_ptr, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY)
    if tl.max(nan.to(tl.int32), axis=0) > 0:
        tl.store(nan_flag_ptr, 1)
    allowed = allowed & (place < tl.where(wanted > 0, positions, 0))
    total = tl.sum(allowed.to(tl.int32), axis=0)
    k = tl.minimum(total, wanted)
    # `count` keys, at least k, reach `low`; fewer than k reach what lies `gap` above it.
    lowest = tl.min(tl.where(allowed, key, tl.max(key, axis=0)), axis=0)
    largest = tl.max(tl.where(allowed, key, lowest), axis=0)
    low = lowest
    count = total
    if tl.int32 == KEY:
        gap = (largest.to(tl.int64) - lowest.to(tl.int64)) + 1
        while (count > k) & (gap > 1):
            half = gap >> 1
            middle = (low.to(tl.int64) + half).to(KEY)
            reached = tl.sum((allowed & (key >= middle)).to(tl.int32), axis=0)
            up = reached >= k
            low = tl.where(up, middle, low)
            count = tl.where(up, reached, count)
            gap = tl.where(up, gap - half, half)
    else:
        # 64-bit keys: halve with shifts, which cannot overflow.
        high = largest
        above = tl.sum((allowed & (key >= high)).to(tl.int32), axis=0)
        low = tl.where(above >= k, high, low)
        count = tl.where(above >= k, above, count)
        while (count > k) & (low < high - 1):
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            middle = tl.where(middle <= low, low + 1, middle)
            reached = tl.sum((allowed & (key >= middle)).to(tl.int32), axis=0)
            up = reached >= k
            low = tl.where(up, middle, low)
            count = tl.where(up, reached, count)
            high = tl.where(up, high, middle)
    chosen = allowed & (key >= low)
    if count > k:
        tied = allowed & (key == low)
        room = k - tl.sum((allowed & (key > low)).to(tl.int32), axis=0)
        rank = tl.cumsum(tied.to(tl.int32), axis=0)
        chosen = (allowed & (key > low)) | (tied & (rank <= room))
    _apply(
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


@triton.jit
def _unsigned(key, KEY: tl.constexpr):
    """Keys as unsigned numbers of the same order, so that their digits can be cut off from the top."""
    if tl.int32 == KEY:
        code = key.to(tl.uint32, bitcast=True) ^ 0x80000000
    else:
        code = key.to(tl.uint64, bitcast=True) ^ 0x8000000000000000
    return code


@triton.jit
def _threshold(counts_ptr, wanted, PASSES: tl.constexpr, KEY: tl.constexpr):
    """From the digit counts [PASSES, 256] of one row: the threshold's first PASSES digits, how many elements that start
    with them are still to be taken, and how many there are."""
    digit = tl.arange(0, 256)
    prefix = tl.sum(digit * 0, axis=0).to(tl.uint32 if tl.int32 == KEY else tl.uint64)
    room = tl.sum(digit * 0, axis=0) + wanted
    there = room
    for step in tl.static_range(PASSES):
        counts = tl.load(counts_ptr + step * 256 + digit)
        if step == 0:
            room = tl.minimum(room, tl.sum(counts, axis=0))
        from_here = tl.cumsum(counts, axis=0, reverse=True)
        found = tl.maximum(tl.sum((from_here >= room).to(tl.int32), axis=0) - 1, 0)
        room -= tl.sum(tl.where(digit > found, counts, 0), axis=0)
        there = tl.sum(tl.where(digit == found, counts, 0), axis=0)
        prefix = (prefix << 8) | found.to(prefix.dtype)
    return prefix, room, there


@triton.jit
def topk_count_kernel(
    grad_ptr,
    support_ptr,
    counts_ptr,
    nan_flag_ptr,
    positions,
    wanted,
    C: tl.constexpr,
    ABS: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
    DIGITS: tl.constexpr,
    PASS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Add to counts [N, DIGITS, 256] how often each digit PASS follows the threshold's digits so far; grid (N,
    chunks)."""
    row = tl.program_id(0)
    counts_ptr += row * (DIGITS * 256)
    if WIDE:
        row = row.to(tl.int64)
    start = row * (C * positions)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < positions
    key, allowed, nan = _keys(
        grad_ptr + start, support_ptr + start, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY
    )
    code = _unsigned(key, KEY)
    if PASS == 0:
        if tl.max(nan.to(tl.int32), axis=0) > 0:
            tl.store(nan_flag_ptr, 1)
    else:
        prefix, _room, _there = _threshold(counts_ptr, wanted, PASS, KEY)
        allowed = allowed & ((code >> (8 * (DIGITS - PASS))) == prefix)
    digit = ((code >> (8 * (DIGITS - 1 - PASS))) & 255).to(tl.int32)
    counted = tl.histogram(digit, 256, mask=allowed)
    tl.atomic_add(counts_ptr + PASS * 256 + tl.arange(0, 256), counted, mask=counted > 0)


@triton.jit
def topk_tie_kernel(
    grad_ptr,
    support_ptr,
    counts_ptr,
    ties_ptr,
    positions,
    wanted,
    C: tl.constexpr,
    ABS: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    SCORE: tl.constexpr,
    KEY: tl.constexpr,
    DIGITS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """ties [N, chunks]: how many elements of each chunk lie exactly at the threshold, where not all of them fit."""
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    threshold, room, there = _threshold(counts_ptr + row * (DIGITS * 256), wanted, DIGITS, KEY)
    ties_ptr += row * tl.num_programs(1) + chunk
    if there > room:
        if WIDE:
            start = row.to(tl.int64) * (C * positions)
        else:
            start = row * (C * positions)
        place = chunk * BLOCK + tl.arange(0, BLOCK)
        inside = place < positions
        key, allowed, _nan = _keys(
            grad_ptr + start, support_ptr + start, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY
        )
        tied = allowed & (_unsigned(key, KEY) == threshold)
        tl.store(ties_ptr, tl.sum(tied.to(tl.int32), axis=0))


@triton.jit
def topk_chunk_kernel(
    grad_ptr,
    noise_ptr,
    x_ptr,
    support_ptr,
    out_ptr,
    counts_ptr,
    ties_ptr,
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
    DIGITS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Select and write one chunk of a long row; grid (N, chunks), CHUNKS the power of two from there."""
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    threshold, room, there = _threshold(counts_ptr + row * (DIGITS * 256), wanted, DIGITS, KEY)
    ties_ptr += row * tl.num_programs(1)
    if WIDE:
        start = row.to(tl.int64) * (C * positions)
    else:
        start = row * (C * positions)
    place = chunk * BLOCK + tl.arange(0, BLOCK)
    inside = place < positions
    key, allowed, _nan = _keys(
        grad_ptr + start, support_ptr + start, place, inside, positions, C, ABS, HAS_SUPPORT, SCORE, KEY
    )
    allowed = allowed & (place < tl.where(wanted > 0, positions, 0))
    code = _unsigned(key, KEY)
    chosen = allowed & (code >= threshold)
    if there > room:
        before = tl.arange(0, CHUNKS)
        room -= tl.sum(tl.load(ties_ptr + before, mask=before < chunk, other=0), axis=0)
        tied = allowed & (code == threshold)
        rank = tl.cumsum(tied.to(tl.int32), axis=0)
        chosen = (allowed & (code > threshold)) | (tied & (rank <= room))
    _apply(
        chosen,
        grad_ptr + start,
        noise_ptr + start,
        x_ptr + start,
        support_ptr + start,
        out_ptr + start,
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
