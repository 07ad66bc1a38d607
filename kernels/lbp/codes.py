"""Local Binary Pattern codes of one row of pixels in Triton, from the grey levels of three.

The comparisons are those of ``cpu.py``: no interpolation, and ties count as "at least as bright". That is wrong only
for some ties outside rows and columns 2..511, which ``doubtful`` finds; where there is one, ``EXACT`` decides all of
them in fp64 as the reference does. Launch without fused multiply-add: it would round differently.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def _reach(diagonal, neighbours, centre):
    """At least 0 where the interpolated diagonal point is at least the centre (int32 levels): 577 / 239 stands for
    .70711 / .29289; 0 only where the diagonal equals the centre and so does the mean of the ``neighbours``."""
    return 577 * diagonal + (239 * neighbours - 1055 * centre)


@triton.jit
def _interpolated(top_left, top_right, bottom_left, bottom_right, x, y):
    top = (1.0 - x) * top_left.to(tl.float64) + x * top_right.to(tl.float64)
    bottom = (1.0 - x) * bottom_left.to(tl.float64) + x * bottom_right.to(tl.float64)
    return (1.0 - y) * top + y * bottom


@triton.jit
def _exactly(a, b, c, d, e, f, g, h, i, row, column):
    """The four diagonal comparisons in fp64, as numbers whose sign is that of point - centre."""
    x = column.to(tl.float64)
    y = 0.0 * x + row
    above, below = (y - 0.70711) - (y - 1.0), (y + 0.70711) - y
    left, right = (x - 0.70711) - (x - 1.0), (x + 0.70711) - x
    level = e.to(tl.float64)
    return (
        tl.where(_interpolated(b, c, e, f, right, above) >= level, 0, -1),
        tl.where(_interpolated(a, b, d, e, left, above) >= level, 0, -1),
        tl.where(_interpolated(d, e, g, h, left, below) >= level, 0, -1),
        tl.where(_interpolated(e, f, h, i, right, below) >= level, 0, -1),
    )


@triton.jit
def _code(pattern, METHOD: tl.constexpr):
    """What METHOD (0 default, 1 ror, 2 uniform) makes of a pattern of eight bits."""
    if METHOD == 2:
        changes, ones = pattern * 0, pattern & 1
        for bit in tl.static_range(7):
            changes += (pattern >> bit ^ pattern >> (bit + 1)) & 1
            ones += (pattern >> (bit + 1)) & 1
        code = tl.where(changes <= 2, ones, 9)
    else:
        code = pattern
        if METHOD == 1:
            turned = code
            for _ in tl.static_range(7):
                turned = (turned >> 1) | ((turned & 1) << 7)
                code = tl.minimum(code, turned)
    return code


@triton.jit
def codes(up, level, down, row, column, METHOD: tl.constexpr, EXACT: tl.constexpr, PX: tl.constexpr):
    """Codes (int32) of PX pixels from the levels of three rows (int32, PX + 2 each, as ``pixels.with_neighbours`` has
    them), and whether a tie is in doubt in any of them, bool [LANES]. ``row`` is a scalar, ``column`` [LANES] that of
    the first pixel.
    """
    found = ()
    doubtful = column != column
    odd_row = (row < 2) | (row >= 512)
    for j in tl.static_range(PX):
        a, b, c = up[j], up[j + 1], up[j + 2]
        d, e, f = level[j], level[j + 1], level[j + 2]
        g, h, i = down[j], down[j + 1], down[j + 2]
        up_right, up_left = _reach(c, b + f, e), _reach(a, b + d, e)
        down_left, down_right = _reach(g, h + d, e), _reach(i, h + f, e)
        if EXACT:
            up_right, up_left, down_left, down_right = _exactly(a, b, c, d, e, f, g, h, i, row, column + j)
        else:
            tied = (((up_right == 0) | (up_left == 0)) & (b != e)) | (((down_left == 0) | (down_right == 0)) & (h != e))
            odd_column = (column + j - 2).to(tl.uint32, bitcast=True) >= 510  # as unsigned numbers, -2 and -1 are large
            doubtful = doubtful | (tied & (odd_column | odd_row))
        # The sign of each difference, shifted in from the last bit to the first, says "darker".
        darker = column * 0
        for difference in tl.static_range(8):
            bit = (down_right, h - e, down_left, d - e, up_left, b - e, up_right, f - e)[difference]
            darker = (darker << 1) | (bit.to(tl.uint32, bitcast=True) >> 31).to(tl.int32)
        found = found + (_code(darker ^ 255, METHOD),)
    return found, doubtful
