"""Central-difference convolution in Triton: forward with its epilogue, and both gradients.

``direct_fwd_kernel`` is for stems of 1 to 4 channels: all 9 C taps of an output row segment, times all O kernels, with
the products on the ordinary units. ``gemm_fwd_kernel`` is an implicit matrix product: output pixels by input channels,
tap by tap, on the tensor cores through ``tl.dot``. At stride 1 it gives the gradient of the input as well, from the
turned kernel. ``gemm_weight_kernel`` is the gradient of the folded kernel, output channels by (tap, input channel),
summed over pixels in fixed pieces: no atomics, so the same bits every time. Its 9 C columns fill a tensor core's tile
for a stem too, which is why stems have no direct form of it.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def _finish(
    total,
    partial_ptr,
    output,
    exists,
    outputs,
    inside,
    AXIS: tl.constexpr,
    RELU: tl.constexpr,
    SUMS: tl.constexpr,
    dtype: tl.constexpr,
):
    """What is stored of ``total`` (ReLU, rounded to ``dtype``) and, with SUMS, the sum and the sum of squares of that
    over the pixels along AXIS, into partial [blocks, 2, O] at this program's block."""
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # NaN stays NaN
    stored = total.to(dtype)
    if SUMS:
        counted = tl.where(inside, stored.to(total.dtype), 0.0)
        place = partial_ptr + tl.program_id(0).to(tl.int64) * 2 * outputs + output
        tl.store(place, tl.sum(counted, axis=AXIS), mask=exists)
        tl.store(place + outputs, tl.sum(counted * counted, axis=AXIS), mask=exists)
    return stored


@triton.jit
def direct_fwd_kernel(
    x_ptr,
    weight_v_ptr,
    weight_c_ptr,
    bias_ptr,
    out_ptr,
    partial_ptr,
    blocks,
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
    HAS_BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUMS: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out [N, O, H', W'] of x [N, C, H, W]; grid (N times ``blocks`` of output pixels, blocks of OUTPUTS). Weights are
    contiguous."""
    n = tl.program_id(0) // blocks
    if WIDE:
        n = n.to(tl.int64)
    pixel = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    out_row, out_column = pixel // out_width, pixel % out_width
    if WIDE:
        out_row, out_column = out_row.to(tl.int64), out_column.to(tl.int64)
    inside = pixel < out_height * out_width
    exists = output < outputs
    x_ptr += n * x_stride_n
    total = tl.zeros([OUTPUTS, PIXELS], dtype=ACC)
    for channel in tl.static_range(C):
        lost = tl.zeros([OUTPUTS], dtype=ACC)  # the sum of w_c over the taps: what the centre tap loses
        for tap in tl.static_range(9):
            lost += tl.load(weight_c_ptr + (output * C + channel) * 9 + tap, mask=exists, other=0).to(ACC)
        for tap in range(9):  # unrolled, it takes every register and spills
            at = (output * C + channel) * 9 + tap
            weight = tl.load(weight_v_ptr + at, mask=exists, other=0).to(ACC)
            weight += tl.load(weight_c_ptr + at, mask=exists, other=0).to(ACC)
            weight -= tl.where(tap == 4, lost, 0.0)
            row = out_row * STRIDE_H - PADDING_H + (tap // 3) * DILATION_H
            column = out_column * STRIDE_W - PADDING_W + (tap % 3) * DILATION_W
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            value = tl.load(x_ptr + row * x_stride_h + column * x_stride_w, mask=there, other=0).to(ACC)
            total += weight[:, None] * value[None, :]
        x_ptr += x_stride_c
    if HAS_BIAS:
        total += tl.load(bias_ptr + output, mask=exists, other=0).to(ACC)[:, None]
    dtype = out_ptr.dtype.element_ty
    stored = _finish(total, partial_ptr, output, exists, outputs, inside[None, :], 1, RELU, SUMS, dtype)
    channel_place = output[:, None] * out_stride_c
    if WIDE:
        channel_place = output[:, None].to(tl.int64) * out_stride_c
    place = channel_place + out_row[None, :] * out_stride_h + out_column[None, :] * out_stride_w
    tl.store(out_ptr + n * out_stride_n + place, stored, mask=exists[:, None] & inside[None, :])


@triton.jit
def gemm_fwd_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    partial_ptr,
    pixels,
    channels,
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
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUMS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out [N, O, H', W'] of x [N, C, H, W] and weight [9, C, O]; grid (blocks of the N H' W' output pixels, blocks of
    OUTPUTS)."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    if WIDE:
        pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
        output = output.to(tl.int64)
    inside, exists = pixel < pixels, output < outputs
    n = pixel // (out_height * out_width)
    out_row, out_column = pixel // out_width % out_height, pixel % out_width
    total = tl.zeros([PIXELS, OUTPUTS], dtype=ACC)
    for tap in range(9):
        row = out_row * STRIDE_H - PADDING_H + (tap // 3) * DILATION_H
        column = out_column * STRIDE_W - PADDING_W + (tap % 3) * DILATION_W
        there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        base = n * x_stride_n + row * x_stride_h + column * x_stride_w
        for first in range(0, channels, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            known = channel < channels
            if WIDE:
                channel = channel.to(tl.int64)
            value = tl.load(
                x_ptr + base[:, None] + channel[None, :] * x_stride_c, mask=there[:, None] & known[None, :], other=0
            )
            weight = tl.load(
                weight_ptr + (tap * channels + channel[:, None]) * outputs + output[None, :],
                mask=known[:, None] & exists[None, :],
                other=0,
            )
            total = tl.dot(value, weight, total, input_precision=PRECISION, out_dtype=ACC)
    if HAS_BIAS:
        total += tl.load(bias_ptr + output, mask=exists, other=0).to(ACC)[None, :]
    dtype = out_ptr.dtype.element_ty
    stored = _finish(total, partial_ptr, output, exists, outputs, inside[:, None], 0, RELU, SUMS, dtype)
    place = n * out_stride_n + out_row * out_stride_h + out_column * out_stride_w
    tl.store(out_ptr + place[:, None] + output[None, :] * out_stride_c, stored, mask=inside[:, None] & exists[None, :])


@triton.jit
def gemm_weight_kernel(
    x_ptr,
    grad_ptr,
    partial_ptr,
    bias_ptr,
    pixels,
    blocks,
    channels,
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
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    BIAS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """partial [splits, O, 9 C] and, with BIAS, bias [splits, O] of x [N, C, H, W] and grad [N, O, H', W']; grid (blocks
    of COLUMNS, blocks of OUTPUTS, splits of ``blocks`` times PIXELS output pixels).

    Column tap * C + c is that tap and channel of the folded kernel. The bias's gradient is the sum of grad, taken by
    the programs of the first columns.
    """
    columns = 9 * channels
    at = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    asked, exists = at < columns, output < outputs
    tap, channel = at // channels, at % channels
    first = tl.program_id(2) * (blocks * PIXELS)
    if WIDE:
        first = tl.program_id(2).to(tl.int64) * (blocks * PIXELS)
        channel, output = channel.to(tl.int64), output.to(tl.int64)
    total = tl.zeros([OUTPUTS, COLUMNS], dtype=ACC)
    summed = tl.zeros([OUTPUTS, PIXELS], dtype=ACC)
    for block in range(blocks):
        pixel = first + block * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < pixels
        n = pixel // (out_height * out_width)
        out_row, out_column = pixel // out_width % out_height, pixel % out_width
        place = n * grad_stride_n + out_row * grad_stride_h + out_column * grad_stride_w
        grad = tl.load(
            grad_ptr + output[:, None] * grad_stride_c + place[None, :],
            mask=exists[:, None] & inside[None, :],
            other=0,
        )
        if BIAS:  # noqa: SIM102 - decided by the compiler, unlike the next one
            if tl.program_id(0) == 0:
                summed += grad.to(ACC)
        row = (out_row * STRIDE_H - PADDING_H)[:, None] + (tap // 3 * DILATION_H)[None, :]
        column = (out_column * STRIDE_W - PADDING_W)[:, None] + (tap % 3 * DILATION_W)[None, :]
        there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        there = there & inside[:, None] & asked[None, :]
        base = (n * x_stride_n)[:, None] + row * x_stride_h + column * x_stride_w
        value = tl.load(x_ptr + base + (channel * x_stride_c)[None, :], mask=there, other=0)
        total = tl.dot(grad, value, total, input_precision=PRECISION, out_dtype=ACC)
    place = tl.program_id(2).to(tl.int64) * outputs + output
    tl.store(partial_ptr + place[:, None] * columns + at[None, :], total, mask=exists[:, None] & asked[None, :])
    if BIAS:  # noqa: SIM102
        if tl.program_id(0) == 0:
            tl.store(bias_ptr + place, tl.sum(summed, axis=1), mask=exists)
