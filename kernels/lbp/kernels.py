"""Local Binary Patterns in Triton.

The three rows around a pixel are kept in registers while a program walks down its rows, so that each row is loaded
three times (at the columns -1, 0 and 1) instead of nine. The comparisons are those of ``cpu.py``; fp64 is used only
in a row where a tie has to be decided outside rows and columns 2..511. Launch without fused multiply-add: it would
round differently.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def reaches(diagonal, vertical, horizontal, centre):
    """Whether the interpolated diagonal point is at least the centre, ties counted as yes (int32 levels)."""
    return 577 * (diagonal - centre) + 239 * (vertical + horizontal - 2 * centre) >= 0


@triton.jit
def is_tie(diagonal, vertical, horizontal, centre):
    return (diagonal == centre) & (vertical + horizontal == 2 * centre) & (vertical != centre)


@triton.jit
def interpolated(top_left, top_right, bottom_left, bottom_right, x, y):
    top = (1.0 - x) * top_left.to(tl.float64) + x * top_right.to(tl.float64)
    bottom = (1.0 - x) * bottom_left.to(tl.float64) + x * bottom_right.to(tl.float64)
    return (1.0 - y) * top + y * bottom


@triton.jit
def lbp_code(a, b, c, d, e, f, g, h, i, row, column, inside, METHOD: tl.constexpr):
    """Codes (int32) of the pixels e at ``row`` (scalar) and ``column`` (block) with the neighbourhood

    a b c
    d e f        all int32 levels; METHOD 0 default, 1 ror, 2 uniform.
    g h i
    """
    up_right, up_left = reaches(c, b, f, e), reaches(a, b, d, e)
    down_left, down_right = reaches(g, h, d, e), reaches(i, h, f, e)
    doubtful = tl.where((row < 2) | (row >= 512), 1 << 30, 2)  # columns below this one
    special = (column < doubtful) | (column >= 512)
    ties = is_tie(c, b, f, e) | is_tie(a, b, d, e) | is_tie(g, h, d, e) | is_tie(i, h, f, e)
    if tl.max((ties & special & inside).to(tl.int32), axis=0) > 0:
        x = column.to(tl.float64)
        y = 0.0 * x + row
        above, below = (y - 0.70711) - (y - 1.0), (y + 0.70711) - y
        left, right = (x - 0.70711) - (x - 1.0), (x + 0.70711) - x
        level = e.to(tl.float64)
        up_right = interpolated(b, c, e, f, right, above) >= level
        up_left = interpolated(a, b, d, e, left, above) >= level
        down_left = interpolated(d, e, g, h, left, below) >= level
        down_right = interpolated(e, f, h, i, right, below) >= level
    b0, b1, b2, b3 = (f >= e).to(tl.int32), up_right.to(tl.int32), (b >= e).to(tl.int32), up_left.to(tl.int32)
    b4, b5, b6, b7 = (d >= e).to(tl.int32), down_left.to(tl.int32), (h >= e).to(tl.int32), down_right.to(tl.int32)
    if METHOD == 2:
        changes = (b0 ^ b1) + (b1 ^ b2) + (b2 ^ b3) + (b3 ^ b4) + (b4 ^ b5) + (b5 ^ b6) + (b6 ^ b7)
        code = tl.where(changes <= 2, b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7, 9)
    else:
        code = b0 | b1 << 1 | b2 << 2 | b3 << 3 | b4 << 4 | b5 << 5 | b6 << 6 | b7 << 7
        if METHOD == 1:
            turned = code
            for _ in tl.static_range(7):
                turned = (turned >> 1) | ((turned & 1) << 7)
                code = tl.minimum(code, turned)
    return code


@triton.jit
def _levels(image, row, column, height, width):
    """int32 levels of one row, black outside."""
    end = tl.where((row >= 0) & (row < height), width, 0)
    inside = (column >= 0) & (column < end)
    return tl.load(image + row * width + column, mask=inside, other=0).to(tl.int32)


@triton.jit
def lbp_fwd_kernel(
    image_ptr,
    code_ptr,
    height,
    width,
    METHOD: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Codes of contiguous uint8 [N, H, W]; grid (N, blocks of ROWS, blocks of COLUMNS)."""
    n = tl.program_id(0)
    if WIDE:
        n = n.to(tl.int64)
    image = image_ptr + n * height * width
    codes = code_ptr + n * height * width
    first = tl.program_id(1) * ROWS
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    a, b, c = (
        _levels(image, first - 1, column - 1, height, width),
        _levels(image, first - 1, column, height, width),
        _levels(image, first - 1, column + 1, height, width),
    )
    d, e, f = (
        _levels(image, first, column - 1, height, width),
        _levels(image, first, column, height, width),
        _levels(image, first, column + 1, height, width),
    )
    for row in range(first, tl.minimum(first + ROWS, height)):
        g = _levels(image, row + 1, column - 1, height, width)
        h = _levels(image, row + 1, column, height, width)
        i = _levels(image, row + 1, column + 1, height, width)
        inside = column < width
        code = lbp_code(a, b, c, d, e, f, g, h, i, row, column, inside, METHOD)
        tl.store(codes + row * width + column, code.to(tl.uint8), mask=inside)
        a, b, c, d, e, f = d, e, f, g, h, i
