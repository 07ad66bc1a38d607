"""What is ranked, as integers of the same order: the bits of |g|, or of g with negative numbers flipped.

What may not be selected (outside the row or the support, NaN) gets the key OUTSIDE: -1 for sizes as int32, else the
lowest there is, below those of all floating scores. An int64 score may have it, which is why int64 keys go with a mask
of what is ``allowed``.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def key_of(score, KEY: tl.constexpr, ABS: tl.constexpr):
    """Integer keys in the order of the scores; floating scores that are NaN get some key."""
    if score.dtype.is_floating():
        if ABS:  # no sign is set
            key = score.to(KEY, bitcast=True)
        else:
            bits = (score + 0.0).to(KEY, bitcast=True)  # -0 becomes +0
            key = tl.where(bits < 0, bits ^ (0x7FFFFFFF if tl.int32 == KEY else 0x7FFFFFFFFFFFFFFF), bits)
    else:
        key = score.to(KEY)
    return key


@triton.jit
def score_of(key, ABS: tl.constexpr):
    """The fp32 score that has an int32 key."""
    bits = key if ABS else tl.where(key < 0, key ^ 0x7FFFFFFF, key)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def lowest_key(like, KEY: tl.constexpr, OUTSIDE: tl.constexpr):
    """The lowest key that may be selected, in the dtype of ``like``."""
    return like * 0 + (OUTSIDE + 1 if tl.int32 == KEY else OUTSIDE)


@triton.jit
def above_all_keys(like, KEY: tl.constexpr):
    """A key above all that floating scores have; the largest of all for others."""
    return like * 0 + (0x7F800001 if tl.int32 == KEY else 0x7FFFFFFFFFFFFFFF)


@triton.jit
def _scores(grad_ptr, place, inside, positions, C: tl.constexpr, ABS: tl.constexpr, SCORE: tl.constexpr):
    """What is ranked at each place: the element, or (C > 1) the sum over its channels from the first on. Floating
    scores that are not ``inside`` are NaN."""
    if grad_ptr.dtype.element_ty.is_floating():
        score = tl.load(grad_ptr + place, mask=inside, other=float("nan")).to(SCORE)
    else:
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
def keys_at(
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
    OUTSIDE: tl.constexpr,
):
    """The scores and keys of the places of one row, and which of them are numbers, and which are ``allowed``."""
    score = _scores(grad_ptr, place, inside, positions, C, ABS, SCORE)
    number = score == score if score.dtype.is_floating() else inside
    allowed = number
    if HAS_SUPPORT:
        within = tl.load(support_ptr + place, mask=inside, other=0) != 0
        for channel in tl.static_range(1, C):
            within = within | (tl.load(support_ptr + channel * positions + place, mask=inside, other=0) != 0)
        allowed = allowed & within
    return score, tl.where(allowed, key_of(score, KEY, ABS), OUTSIDE), number, allowed
