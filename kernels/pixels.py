"""Pixels in registers, for Triton kernels: each lane holds PX neighbouring pixels of a row, every value by itself.

A block [LANES, PX] is loaded and stored in one access a lane, of 128 bits for PX = 4 in fp32; between the two its PX
columns are values [LANES] of their own, so that a pixel's neighbours are at hand by name, channels_last or not. All of
it is renaming of registers: no instruction comes of it. Needs Triton.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def apart(block, PX: tl.constexpr):
    """The columns of [LANES, PX], PX 1, 2 or 4."""
    lanes: tl.constexpr = block.shape[0]
    if PX == 1:
        parts = (tl.reshape(block, [lanes]),)
    elif PX == 2:
        parts = tl.split(block)
    else:
        even, odd = tl.split(tl.reshape(block, [lanes, 2, 2]))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        parts = (first, second, third, fourth)
    return parts


@triton.jit
def together(parts, PX: tl.constexpr):
    """[LANES, PX] of its columns."""
    lanes: tl.constexpr = parts[0].shape[0]
    if PX == 1:
        block = tl.reshape(parts[0], [lanes, 1])
    elif PX == 2:
        block = tl.join(parts[0], parts[1])
    else:
        block = tl.reshape(tl.join(tl.join(parts[0], parts[2]), tl.join(parts[1], parts[3])), [lanes, 4])
    return block


@triton.jit
def _places(ptr, run, number: tl.constexpr, plane, C: tl.constexpr, LAST: tl.constexpr, PX: tl.constexpr):
    """Where access ``number`` of C goes."""
    column = tl.arange(0, PX)[None, :]
    # Multiples of PX by their form, so that the compiler sees them; constants last, where the access itself holds them.
    if LAST:
        place = ptr + (run * (PX * C))[:, None] + (number * PX + column)
    else:
        place = ptr + number * (plane * PX) + (run * PX)[:, None] + column
    return place


@triton.jit
def load_pixels(
    ptr,
    run,
    exists,
    plane,
    C: tl.constexpr,
    LAST: tl.constexpr,
    PX: tl.constexpr,
):
    """The C PX values of each lane's pixels, 0 where they do not exist: channel c of pixel j is value C j + c if LAST
    (channels are neighbours in memory), else PX c + j.

    ``run`` [LANES] is which run of PX pixels is a lane's, counted from ``ptr`` on; ``plane`` how many there are in a
    channel's plane.
    """
    values = ()
    for number in tl.static_range(C):
        place = _places(ptr, run, number, plane, C, LAST, PX)
        values = values + apart(tl.load(place, mask=exists[:, None], other=0), PX)
    return values


@triton.jit
def store_pixels(
    ptr,
    values,
    run,
    exists,
    plane,
    C: tl.constexpr,
    LAST: tl.constexpr,
    PX: tl.constexpr,
):
    """Store what :func:`load_pixels` would load."""
    for number in tl.static_range(C):
        part = ()
        for column in tl.static_range(PX):
            part = part + (values[number * PX + column],)
        place = _places(ptr, run, number, plane, C, LAST, PX)
        tl.store(place, together(part, PX), mask=exists[:, None])


@triton.jit
def with_neighbours(values, edge, lane, LANES: tl.constexpr, PX: tl.constexpr):
    """PX + 2 values: one to the left of a lane's, its own, and one to the right. ``edge`` [LANES] holds what lies to
    the left of the first lane and to the right of the last."""
    before = tl.gather(values[PX - 1], tl.maximum(lane - 1, 0), 0)
    behind = tl.gather(values[0], tl.minimum(lane + 1, LANES - 1), 0)
    row = (tl.where(lane == 0, edge, before),)
    for column in tl.static_range(PX):
        row = row + (values[column],)
    return row + (tl.where(lane == LANES - 1, edge, behind),)
