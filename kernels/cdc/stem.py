"""Stems of central-difference convolutions in Triton: 1 to 3 input channels, on the tensor cores.

Output pixels by the 9 C taps of their window (padded to a tensor core's 16 or 32) times the folded kernel, one product
for all outputs of a program. Pixels go in tiles of ROWS by COLUMNS, so that their places come from shifts: dividing
each of them by the image's width would take more instructions than everything else.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.cdc.epilogue import finish


@triton.jit
def _windows(
    x_ptr,
    top,
    left,
    pixel,
    k,
    height,
    width,
    stride_c,
    stride_h,
    stride_w,
    C: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """x at tap k // C and channel k % C of the window of each ``pixel`` of the tile at (``top``, ``left``): [pixels,
    K], 0 outside the image and for k from 9 C on."""
    tap, channel = k // C, k % C
    down, across = tap // 3 * DILATION_H, tap % 3 * DILATION_W
    inner_row, inner_column = pixel // COLUMNS * STRIDE_H, pixel % COLUMNS * STRIDE_W
    first_row, first_column = top * STRIDE_H - PADDING_H, left * STRIDE_W - PADDING_W
    row = (first_row + inner_row)[:, None] + down[None, :]
    column = (first_column + inner_column)[:, None] + across[None, :]
    # As unsigned numbers, those below 0 lie beyond the other end too.
    there = (row.to(tl.uint32, bitcast=True) < height) & (column.to(tl.uint32, bitcast=True) < width)
    there = there & (k < 9 * C)[None, :]
    if WIDE:
        first_row, first_column, channel = first_row.to(tl.int64), first_column.to(tl.int64), channel.to(tl.int64)
        inner_row, inner_column = inner_row.to(tl.int64), inner_column.to(tl.int64)
        down, across = down.to(tl.int64), across.to(tl.int64)
    of_pixel = inner_row * stride_h + inner_column * stride_w
    of_tap = down * stride_h + across * stride_w + channel * stride_c
    at = first_row * stride_h + first_column * stride_w
    return tl.load(x_ptr + at + (of_pixel[:, None] + of_tap[None, :]), mask=there, other=0)


@triton.jit
def stem_fwd_kernel(
    x_ptr,
    folded_ptr,
    bias_ptr,
    out_ptr,
    partial_ptr,
    down,
    across,
    outputs,
    height,
    width,
    out_height,
    out_width,
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    C: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUMS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out [N, O, H', W'] of x [N, C, H, W] and folded [9, C, O]; grid (N times ``down`` times ``across`` tiles, blocks
    of OUTPUTS). K is the power of two from 9 C on, at least 16."""
    tile = tl.program_id(0)
    n = tile // (down * across)
    top, left = tile // across % down * ROWS, tile % across * COLUMNS
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    if WIDE:
        n, output = n.to(tl.int64), output.to(tl.int64)
    pixel, k = tl.arange(0, ROWS * COLUMNS), tl.arange(0, K)
    value = _windows(
        x_ptr + n * x_stride_n,
        top,
        left,
        pixel,
        k,
        height,
        width,
        x_stride_c,
        x_stride_h,
        x_stride_w,
        C,
        STRIDE_H,
        STRIDE_W,
        PADDING_H,
        PADDING_W,
        DILATION_H,
        DILATION_W,
        COLUMNS,
        WIDE,
    )
    exists = output < outputs
    known = (k < 9 * C)[:, None] & exists[None, :]
    weight = tl.load(folded_ptr + k[:, None] * outputs + output[None, :], mask=known, other=0)
    total = tl.dot(value, weight, input_precision=PRECISION, out_dtype=ACC)
    out_row, out_column = top + pixel // COLUMNS, left + pixel % COLUMNS
    inside = (out_row < out_height) & (out_column < out_width)
    dtype = out_ptr.dtype.element_ty
    if WIDE:
        out_row, out_column = out_row.to(tl.int64), out_column.to(tl.int64)
    stored = finish(total, bias_ptr, partial_ptr, output, exists, outputs, inside[:, None], HAS_BIAS, RELU, SUMS, dtype)
    place = n * out_stride_n + out_row * out_stride_h + out_column * out_stride_w
    tl.store(out_ptr + place[:, None] + output[None, :] * out_stride_c, stored, mask=inside[:, None] & exists[None, :])


@triton.jit
def stem_weight_kernel(
    x_ptr,
    grad_ptr,
    partial_ptr,
    tiles,
    each,
    down,
    across,
    outputs,
    height,
    width,
    out_height,
    out_width,
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    C: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    K: tl.constexpr,
    BIAS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of the folded kernel in pieces, partial [programs, O, 9 C (+ 1)], of x [N, C, H, W] and grad [N, O,
    H', W']; grid (programs of ``each`` tiles, blocks of OUTPUTS).

    Column tap * C + c is that tap and channel. With BIAS one more column of ones gives the bias's gradient; K is the
    power of two from there on, at least 16.
    """
    TAPS: tl.constexpr = 9 * C
    pixel, k = tl.arange(0, ROWS * COLUMNS), tl.arange(0, K)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    exists = output < outputs
    if WIDE:
        output = output.to(tl.int64)
    inner_row, inner_column = pixel // COLUMNS, pixel % COLUMNS
    of_pixel = inner_row * grad_stride_h + inner_column * grad_stride_w
    if WIDE:
        of_pixel = inner_row.to(tl.int64) * grad_stride_h + inner_column.to(tl.int64) * grad_stride_w
    total = tl.zeros([OUTPUTS, K], dtype=ACC)
    first = tl.program_id(0) * each
    for tile in range(first, tl.minimum(first + each, tiles)):
        n = tile // (down * across)
        top, left = tile // across % down * ROWS, tile % across * COLUMNS
        inside = (inner_row < out_height - top) & (inner_column < out_width - left)
        corner = top * grad_stride_h + left * grad_stride_w
        if WIDE:
            n = n.to(tl.int64)
            corner = top.to(tl.int64) * grad_stride_h + left.to(tl.int64) * grad_stride_w
        place = (output * grad_stride_c)[:, None] + of_pixel[None, :]
        here = grad_ptr + n * grad_stride_n + corner
        grad = tl.load(here + place, mask=exists[:, None] & inside[None, :], other=0)
        value = _windows(
            x_ptr + n * x_stride_n,
            top,
            left,
            pixel,
            k,
            height,
            width,
            x_stride_c,
            x_stride_h,
            x_stride_w,
            C,
            STRIDE_H,
            STRIDE_W,
            PADDING_H,
            PADDING_W,
            DILATION_H,
            DILATION_W,
            COLUMNS,
            WIDE,
        )
        if BIAS:
            value = tl.where((k == TAPS)[None, :] & (pixel >= 0)[:, None], 1.0, value).to(value.dtype)
        total = tl.dot(grad, value, total, input_precision=PRECISION, out_dtype=ACC)
    place = tl.program_id(0).to(tl.int64) * outputs + output
    known = exists[:, None] & (k < TAPS + BIAS)[None, :]
    tl.store(partial_ptr + place[:, None] * (TAPS + BIAS) + k[None, :], total, mask=known)
