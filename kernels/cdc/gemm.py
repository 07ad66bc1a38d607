"""Central-difference convolution as an implicit matrix product in Triton: output pixels by input channels, tap by tap,
on the tensor cores through ``tl.dot``. At stride 1 it gives the gradient of the input as well, from the turned
kernel."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.cdc.epilogue import finish


@triton.jit
def gemm_fwd_kernel(
    x_ptr,
    folded_ptr,
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
    folded_stride_in,
    folded_stride_out,
    folded_stride_tap,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    TURNED: tl.constexpr,
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
    """out [N, O, H', W'] of x [N, C, H, W] and the folded kernel, its taps backwards if TURNED; grid (blocks of the
    N H' W' output pixels, blocks of OUTPUTS)."""
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
        weight_tap = 8 - tap if TURNED else tap
        weight_ptr = folded_ptr + weight_tap * folded_stride_tap
        for first in range(0, channels, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            known = channel < channels
            if WIDE:
                channel = channel.to(tl.int64)
            value = tl.load(
                x_ptr + base[:, None] + channel[None, :] * x_stride_c, mask=there[:, None] & known[None, :], other=0
            )
            weight = tl.load(
                weight_ptr + channel[:, None] * folded_stride_in + output[None, :] * folded_stride_out,
                mask=known[:, None] & exists[None, :],
                other=0,
            )
            total = tl.dot(value, weight, total, input_precision=PRECISION, out_dtype=ACC)
    dtype = out_ptr.dtype.element_ty
    stored = finish(total, bias_ptr, partial_ptr, output, exists, outputs, inside[:, None], HAS_BIAS, RELU, SUMS, dtype)
    place = n * out_stride_n + out_row * out_stride_h + out_column * out_stride_w
    tl.store(out_ptr + place[:, None] + output[None, :] * out_stride_c, stored, mask=inside[:, None] & exists[None, :])
