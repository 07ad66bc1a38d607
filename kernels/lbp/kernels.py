"""Local Binary Patterns in Triton: a warp walks down rows of a strip of columns, and keeps three rows' levels in
registers, so that each is loaded once."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.lbp.codes import codes
from medveil.kernels.pixels import load_pixels, store_pixels, with_neighbours


@triton.jit
def _row(image_ptr, row, column, height, width, lane, LANES: tl.constexpr, PX: tl.constexpr):
    """The bytes of one row, PX of each lane's and one beside the warp's for its first and last; 0 outside."""
    end = tl.where((row >= 0) & (row < height), width, 0)
    run = row * (width // PX) + column // PX
    loaded = load_pixels(image_ptr, run, column < end, 0, 1, False, PX)
    beside = tl.where(lane == 0, column - 1, column + PX)
    at_edge = ((lane == 0) | (lane == LANES - 1)) & (beside >= 0) & (beside < end)
    return loaded + (tl.load(image_ptr + row * width + beside, mask=at_edge, other=0),)


@triton.jit
def _levels(loaded, lane, LANES: tl.constexpr, PX: tl.constexpr):
    """int32 levels of a row with their neighbours."""
    levels = ()
    for j in tl.static_range(PX):
        levels = levels + (loaded[j].to(tl.int32),)
    return with_neighbours(levels, loaded[PX].to(tl.int32), lane, LANES, PX)


@triton.jit
def _walk(
    image_ptr,
    code_ptr,
    first,
    column,
    height,
    width,
    lane,
    METHOD: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """Codes of ROWS rows; how many ties are in doubt, [LANES]."""
    doubts = column * 0
    up = _levels(_row(image_ptr, first - 1, column, height, width, lane, LANES, PX), lane, LANES, PX)
    level = _levels(_row(image_ptr, first, column, height, width, lane, LANES, PX), lane, LANES, PX)
    queue = ()
    for ahead in tl.static_range(AHEAD):
        queue = queue + (_row(image_ptr, first + 1 + ahead, column, height, width, lane, LANES, PX),)
    for row in range(first, tl.minimum(first + ROWS, height)):
        down = _levels(queue[0], lane, LANES, PX)
        later = ()
        for ahead in tl.static_range(1, AHEAD):
            later = later + (queue[ahead],)
        queue = later + (_row(image_ptr, row + 1 + AHEAD, column, height, width, lane, LANES, PX),)
        found, doubtful = codes(up, level, down, row, column, METHOD, EXACT, PX)
        doubts = doubts | doubtful.to(tl.int32)
        stored = ()
        for j in tl.static_range(PX):
            stored = stored + (found[j].to(tl.uint8),)
        run = row * (width // PX) + column // PX
        store_pixels(code_ptr, stored, run, column < width, 0, 1, False, PX)
        up, level = level, down
    return doubts


@triton.jit
def lbp_fwd_kernel(
    image_ptr,
    code_ptr,
    height,
    width,
    down,
    across,
    METHOD: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    AHEAD: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Codes of contiguous uint8 [N, H, W]; a program for each of N times ``down`` times ``across`` blocks of ROWS rows
    and LANES PX columns. AHEAD rows are being loaded while one is worked on: a row is few bytes."""
    program = tl.program_id(0)
    n = program // (down * across)
    if WIDE:
        n = n.to(tl.int64)
    plane = n * height * (width // PX) * PX
    image_ptr += plane
    code_ptr += plane
    lane = tl.arange(0, LANES)
    first, column = program // across % down * ROWS, (program % across * LANES + lane) * PX
    arguments = image_ptr, code_ptr, first, column, height, width, lane
    doubts = _walk(*arguments, METHOD, False, ROWS, LANES, PX, AHEAD)
    if tl.max(doubts, axis=0) > 0:
        _walk(*arguments, METHOD, True, ROWS, LANES, PX, AHEAD)
