"""The k-th largest of the keys that a program holds, by counting how many reach a threshold, round after round.

int32 keys of floating scores: the threshold is put where the logarithm of the count, taken for a straight line in the
score between the two ends of the bracket, comes to k (false position, in Illinois' form: the value at an end that
stays is halved). After some rounds the bracket is drawn in to the keys that lie in it, so that rows full of ties end
too. That takes about half of bisection's rounds. int64 keys: bisection.

Keys come as a tuple of TILES blocks of TILE.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.topk.keys import key_of, score_of

ROUNDS: tl.constexpr = tl.constexpr(5)  # the last of them halves the bracket, whatever the counts say


@triton.jit
def how_many(keys, threshold, TILES: tl.constexpr, TILE: tl.constexpr, KEY: tl.constexpr, ABS: tl.constexpr):
    """How many of ``keys`` are at least ``threshold``, which lies above OUTSIDE."""
    found = tl.zeros([TILE], dtype=tl.int32)
    if tl.int32 == KEY and ABS:  # differences do not overflow: their signs, 0 or -1, take off what lies below
        for tile in tl.static_range(TILES):
            found += (keys[tile] - threshold) >> 31
        reached = tl.sum(found, axis=0) + TILES * TILE
    else:
        for tile in tl.static_range(TILES):
            found += (keys[tile] >= threshold).to(tl.int32)
        reached = tl.sum(found, axis=0)
    return reached


@triton.jit
def middle_of(low, high):
    """Half-way, rounded down, without overflow."""
    return (low >> 1) + (high >> 1) + (low & high & 1)


@triton.jit
def _distance(reached, share):
    """How far the logarithm of a count lies above that of k, whose inverse is ``share``."""
    return tl.log2(tl.maximum(reached.to(tl.float32), 0.5) * share)


@triton.jit
def _interpolated(low, high, above, below, KEY: tl.constexpr, ABS: tl.constexpr):
    """The key of the score that divides the bracket as 0 divides ``above`` > 0 and ``below`` < 0; within the bracket,
    whatever infinities come to."""
    least, most = score_of(low, ABS), score_of(high, ABS)
    key = key_of(least + (most - least) * (above / (above - below)), KEY, ABS)
    return tl.minimum(tl.maximum(key, low + 1), high - 1)


@triton.jit
def reach(
    keys,
    first,
    k,
    total,
    lowest,
    largest,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    KEY: tl.constexpr,
    ABS: tl.constexpr,
):
    """A threshold and how many keys reach it: exactly ``k``, or more if the k-th key is the threshold and ties.

    ``total`` keys, at least k >= 1, lie in ``lowest``..``largest``. ``first`` is the threshold to try first (int32 keys
    only).
    """
    low, count = lowest, total
    if tl.int32 == KEY:
        high = largest + 1
        share = 1.0 / k.to(tl.float32)
        above, below = _distance(total, share), _distance(k * 0, share)
        middle = tl.minimum(tl.maximum(first, low + 1), high - 1)
        side, number = k * 0 + 2, k * 0  # side: which end moved last, none so far
        while (count > k) & (low < high - 1):
            while (number < ROUNDS) & (count > k) & (low < high - 1):
                reached = how_many(keys, middle, TILES, TILE, KEY, ABS)
                up = reached >= k
                found = _distance(reached, share)
                stays = side == up.to(tl.int32)  # the other end has stayed twice
                above, below = (
                    tl.where(up, found, tl.where(stays, 0.5 * above, above)),
                    tl.where(up, tl.where(stays, 0.5 * below, below), found),
                )
                low, high = tl.where(up, middle, low), tl.where(up, high, middle)
                count = tl.where(up, reached, count)
                side = up.to(tl.int32)
                number += 1
                middle = _interpolated(low, high, above, below, KEY, ABS)
                middle = tl.where(number == ROUNDS - 1, middle_of(low, high), middle)
            if (count > k) & (low < high - 1):  # draw the bracket in to the keys that lie in it
                least = tl.zeros([TILE], dtype=KEY) + high
                most = tl.zeros([TILE], dtype=KEY) + low
                for tile in tl.static_range(TILES):
                    key = keys[tile]
                    least = tl.minimum(least, tl.where(key >= low, key, high))
                    most = tl.maximum(most, tl.where(key < high, key, low))
                low, high = tl.min(least, axis=0), tl.max(most, axis=0) + 1
                middle = _interpolated(low, high, above, below, KEY, ABS)
            number = k * 0
    else:
        high = largest
        above = how_many(keys, high, TILES, TILE, KEY, ABS)
        low = tl.where(above >= k, high, low)
        count = tl.where(above >= k, above, count)
        while (count > k) & (low < high - 1):
            middle = middle_of(low, high)
            middle = tl.where(middle <= low, low + 1, middle)
            reached = how_many(keys, middle, TILES, TILE, KEY, ABS)
            up = reached >= k
            low = tl.where(up, middle, low)
            count = tl.where(up, reached, count)
            high = tl.where(up, high, middle)
    return low, count


@triton.jit
def first_of_tie(chosen, key, threshold, room, before):
    """Of what is ``chosen`` in one block of a row, without those at the threshold for which there is no ``room``:
    ``before`` of them lie in earlier blocks. Also how many lie in this block and those."""
    tied = chosen & (key == threshold)
    rank = before + tl.cumsum(tied.to(tl.int32), axis=0)
    kept = chosen & ((key > threshold) | (rank <= room))
    return kept, before + tl.sum(tied.to(tl.int32), axis=0)


@triton.jit
def extent(
    keys,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    KEY: tl.constexpr,
    ABS: tl.constexpr,
    OUTSIDE: tl.constexpr,
):
    """A key that none of those that may be selected lies below, and the largest."""
    most = keys[0]
    for tile in tl.static_range(1, TILES):
        most = tl.maximum(most, keys[tile])
    largest = tl.max(most, axis=0)
    if tl.int64 == KEY:
        lowest = largest * 0 + OUTSIDE
    elif ABS:
        lowest = largest * 0
    else:
        least = tl.zeros([TILE], dtype=KEY) + largest
        for tile in tl.static_range(TILES):
            least = tl.minimum(least, tl.where(keys[tile] == OUTSIDE, largest, keys[tile]))
        lowest = tl.min(least, axis=0)
    return lowest, largest
