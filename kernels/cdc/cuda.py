"""Launchers of the Triton kernels of ``medveil::cdc_conv2d``, and the choice between them and the library.

Each launcher also answers for the sums of the epilogue, [2, O] in the accumulator's precision: of the stored outputs
and of their squares, per output channel. Pieces are summed in a fixed order, so results repeat to the bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.cdc import reference
from medveil.kernels.cdc.choices import choose
from medveil.kernels.cdc.kernels import direct_fwd_kernel, gemm_fwd_kernel, gemm_weight_kernel
from medveil.kernels.cdc.reference import Pair
from medveil.kernels.layout import needs_64_bits, prefers_channels_last

DIRECT = {"PIXELS": 128, "OUTPUTS": 16, "num_warps": 4, "enable_fp_fusion": True}
GEMM = {"PIXELS": 64, "OUTPUTS": 64, "CHANNELS": 32, "num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}
WEIGHT = {"PIXELS": 64, "OUTPUTS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}
PROGRAMS = 1024  # of the weight gradient: the pixels are split until there are about this many
LEAST_BLOCKS = 16  # of pixels that one of them sums: fewer cost more in the sum over the pieces


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _output(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """An empty result in the memory layout that the library's convolution would give."""
    sides = [
        (size + 2 * p - 2 * d - 1) // s + 1
        for size, s, p, d in zip(x.shape[2:], stride, padding, dilation, strict=True)
    ]
    last = prefers_channels_last(x) or prefers_channels_last(weight)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((x.shape[0], weight.shape[0], *sides), dtype=x.dtype, device=x.device, memory_format=layout)


def _constants(x: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> dict[str, Any]:
    """The geometry and the accumulator as compile-time constants."""
    pairs = zip(("STRIDE", "PADDING", "DILATION"), (stride, padding, dilation), strict=True)
    geometry = {f"{name}_{side}": pair[i] for name, pair in pairs for i, side in enumerate("HW")}
    return geometry | {"ACC": tl.float64 if x.dtype == torch.float64 else tl.float32}


def _precision() -> str:
    """How fp32 is multiplied: as TF32 where torch allows that to the library."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"


def _fitted(block: int, size: int) -> int:
    """A block no larger than ``size`` needs; a tensor core's tile has at least 16."""
    return min(block, max(16, triton.next_power_of_2(size)))


def direct(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool = False,
    sums: bool = False,
) -> tuple[Tensor, Tensor]:
    """The direct kernel: for few input channels. The sums are empty [0] unless asked for."""
    out = _output(x, weight_v, stride, padding, dilation)
    n, outputs, height, width = out.shape
    blocks = triton.cdiv(height * width, DIRECT["PIXELS"])
    partial = out.new_zeros((n * blocks, 2, outputs) if sums else 0, dtype=_accumulator(x))
    if out.numel() > 0:
        with torch.cuda.device_of(x):
            direct_fwd_kernel[(n * blocks, triton.cdiv(outputs, DIRECT["OUTPUTS"]))](
                x,
                weight_v.contiguous(),
                weight_c.contiguous(),
                out if bias is None else bias,
                out,
                partial,
                blocks,
                outputs,
                *x.shape[2:],
                height,
                width,
                *x.stride(),
                *out.stride(),
                C=x.shape[1],
                **_constants(x, stride, padding, dilation),
                HAS_BIAS=bias is not None,
                RELU=relu,
                SUMS=sums,
                WIDE=needs_64_bits(x, out),
                **DIRECT,
            )
    return out, partial.sum(0) if sums else partial


def _gemm_into(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool = False,
    sums: bool = False,
) -> Tensor:
    """Fill ``out`` from ``x`` and ``weight`` [9, C, O] by the implicit matrix product; returns the sums."""
    n, outputs, height, width = out.shape
    pixels = n * height * width
    blocks = triton.cdiv(pixels, GEMM["PIXELS"])
    partial = out.new_zeros((blocks, 2, outputs) if sums else 0, dtype=_accumulator(x))
    if out.numel() > 0:
        block = GEMM | {"OUTPUTS": _fitted(GEMM["OUTPUTS"], outputs)}
        with torch.cuda.device_of(x):
            gemm_fwd_kernel[(blocks, triton.cdiv(outputs, block["OUTPUTS"]))](
                x,
                weight,
                out if bias is None else bias,
                out,
                partial,
                pixels,
                x.shape[1],
                outputs,
                *x.shape[2:],
                height,
                width,
                *x.stride(),
                *out.stride(),
                **_constants(x, stride, padding, dilation),
                HAS_BIAS=bias is not None,
                RELU=relu,
                SUMS=sums,
                PRECISION=_precision(),
                WIDE=needs_64_bits(x, out),
                **block,
            )
    return partial.sum(0) if sums else partial


def gemm(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool = False,
    sums: bool = False,
) -> tuple[Tensor, Tensor]:
    """The implicit matrix product: for many input channels. The sums are empty [0] unless asked for."""
    out = _output(x, weight_v, stride, padding, dilation)
    # Folded once, taps first and outputs last, so that neighbouring threads load neighbouring weights.
    weight = reference.fold(weight_v, weight_c).to(x.dtype).permute(2, 3, 1, 0).contiguous()
    return out, _gemm_into(out, x, weight, bias, stride, padding, dilation, relu, sums)


def gemm_grad_input(
    grad: Tensor, x: Tensor, weight_v: Tensor, weight_c: Tensor, padding: Pair, dilation: Pair
) -> Tensor:
    """The gradient of x at stride 1: the forward product over ``grad`` with the folded kernel turned by half a turn,
    input and output channels exchanged."""
    out = torch.empty_like(x)
    weight = reference.fold(weight_v, weight_c).to(x.dtype).flip(2, 3).permute(2, 3, 0, 1).contiguous()
    turned = [2 * d - p for d, p in zip(dilation, padding, strict=True)]
    _gemm_into(out, grad, weight, None, [1, 1], turned, dilation)
    return out


def gemm_grad_weight(
    grad: Tensor, x: Tensor, stride: Pair, padding: Pair, dilation: Pair, bias: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of the folded kernel [O, C, 3, 3] and, with ``bias``, of the bias [O], else empty [0]; both in the
    accumulator's precision."""
    n, outputs, height, width = grad.shape
    channels, pixels = x.shape[1], n * height * width
    columns = 9 * channels
    block = WEIGHT | {
        "OUTPUTS": _fitted(WEIGHT["OUTPUTS"], outputs),
        "COLUMNS": _fitted(WEIGHT["COLUMNS"], columns),
    }
    tiles = triton.cdiv(columns, block["COLUMNS"]), triton.cdiv(outputs, block["OUTPUTS"])
    blocks = max(LEAST_BLOCKS, triton.cdiv(pixels * tiles[0] * tiles[1], block["PIXELS"] * PROGRAMS))
    splits = triton.cdiv(pixels, blocks * block["PIXELS"])
    partial = grad.new_empty((splits, outputs, columns), dtype=_accumulator(x))
    bias_partial = grad.new_empty((splits, outputs) if bias else 0, dtype=_accumulator(x))
    if partial.numel() > 0:
        with torch.cuda.device_of(x):
            gemm_weight_kernel[(*tiles, splits)](
                x,
                grad,
                partial,
                bias_partial,
                pixels,
                blocks,
                channels,
                outputs,
                *x.shape[2:],
                height,
                width,
                *x.stride(),
                *grad.stride(),
                **_constants(x, stride, padding, dilation),
                BIAS=bias,
                PRECISION=_precision(),
                WIDE=needs_64_bits(x, grad),
                **block,
            )
    weight = partial.sum(0).unflatten(1, (3, 3, channels)).permute(0, 3, 1, 2).contiguous()
    return weight, bias_partial.sum(0) if bias else bias_partial


IMPLEMENTATIONS = {
    "library": reference.cdc_conv2d,
    "direct": lambda *arguments: direct(*arguments)[0],
    "gemm": lambda *arguments: gemm(*arguments)[0],
}


def cdc_conv2d_stats(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """The forward pass with its epilogue, by the implementation that ``choices.py`` names."""
    choice = choose("forward", x.shape[1], x.dtype)
    run = {"direct": direct, "gemm": gemm}.get(choice)
    if run is None:
        return reference.cdc_conv2d_stats(x, weight_v, weight_c, bias, stride, padding, dilation, relu)
    return run(x, weight_v, weight_c, bias, stride, padding, dilation, relu, sums=True)


def cdc_conv2d(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The forward pass by the implementation that ``choices.py`` names."""
    run = IMPLEMENTATIONS[choose("forward", x.shape[1], x.dtype)]
    return run(x, weight_v, weight_c, bias, stride, padding, dilation)


def cdc_conv2d_backward(
    grad: Tensor,
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """As the reference, each gradient by the implementation that ``choices.py`` names."""
    ours_x = wanted[0] and stride == [1, 1] and choose("input", x.shape[1], x.dtype) == "gemm"
    ours_weight = wanted[1] and choose("weight", x.shape[1], x.dtype) == "gemm"
    left = [wanted[0] and not ours_x, wanted[1] and not ours_weight, wanted[2] and not ours_weight]
    grad_x, grad_weight, grad_bias = grad.new_empty(0), weight_v.new_empty(0), grad.new_empty(0)
    if any(left):
        arguments = grad, x, weight_v, weight_c, stride, padding, dilation
        grad_x, grad_weight, grad_bias = reference.cdc_conv2d_backward(*arguments, left)
    if ours_x:
        grad_x = gemm_grad_input(grad, x, weight_v, weight_c, padding, dilation)
    if ours_weight:
        grad_weight, found = gemm_grad_weight(grad, x, stride, padding, dilation, wanted[2])
        grad_weight = grad_weight.to(weight_v.dtype)
        grad_bias = found.to(grad.dtype)
    return grad_x, grad_weight, grad_bias
