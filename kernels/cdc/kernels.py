"""Central-difference convolution in Triton, forward; the bias is added last.

``direct_fwd_kernel`` is for stems of 1 to 4 channels: all 9 C taps of an output row segment, times all O kernels, with
the products on the ordinary units. ``gemm_fwd_kernel`` is an implicit matrix product for wide layers: output pixels by
input channels, tap by tap, on the tensor cores through ``tl.dot``.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def direct_fwd_kernel(
    x_ptr,
    weight_v_ptr,
    weight_c_ptr,
    bias_ptr,
    out_ptr,
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
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out [N, O, H', W'] of x [N, C, H, W]; grid (N, blocks of output pixels, blocks of OUTPUTS). Weights are
    contiguous."""
    n = tl.program_id(0)
    if WIDE:
        n = n.to(tl.int64)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    output = tl.program_id(2) * OUTPUTS + tl.arange(0, OUTPUTS)
    out_row, out_column = pixel // out_width, pixel % out_width
    inside = pixel < out_height * out_width
    exists = output < outputs
    x_ptr += n * x_stride_n
    total = tl.zeros([OUTPUTS, PIXELS], dtype=ACC)
    for channel in tl.static_range(C):
        centre = tl.zeros([OUTPUTS], dtype=ACC)  # the sum of w_c over the taps: what the centre tap loses
        for tap in tl.static_range(9):
            centre += tl.load(weight_c_ptr + (output * C + channel) * 9 + tap, mask=exists, other=0).to(ACC)
        for tap in tl.static_range(9):
            at = (output * C + channel) * 9 + tap
            weight = tl.load(weight_v_ptr + at, mask=exists, other=0).to(ACC)
            weight += tl.load(weight_c_ptr + at, mask=exists, other=0).to(ACC)
            if tap == 4:
                weight -= centre
            row = out_row * STRIDE_H - PADDING_H + (tap // 3) * DILATION_H
            column = out_column * STRIDE_W - PADDING_W + (tap % 3) * DILATION_W
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            offset = channel * x_stride_c + row * x_stride_h + column * x_stride_w
            value = tl.load(x_ptr + offset, mask=there, other=0).to(ACC)
            total += weight[:, None] * value[None, :]
    if HAS_BIAS:
        total += tl.load(bias_ptr + output, mask=exists, other=0).to(ACC)[:, None]
    place = output[:, None] * out_stride_c + out_row[None, :] * out_stride_h + out_column[None, :] * out_stride_w
    tl.store(out_ptr + n * out_stride_n + place, total, mask=exists[:, None] & inside[None, :])


@triton.jit
def gemm_fwd_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
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
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out [N, O, H', W'] of x [N, C, H, W]; grid (blocks of the N H' W' output pixels, blocks of OUTPUTS)."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    if WIDE:
        pixel = pixel.to(tl.int64)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
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
    place = n * out_stride_n + out_row * out_stride_h + out_column * out_stride_w
    tl.store(out_ptr + place[:, None] + output[None, :] * out_stride_c, total, mask=inside[:, None] & exists[None, :])
