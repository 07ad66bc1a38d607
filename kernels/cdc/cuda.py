"""Launchers of the Triton kernels of ``medveil::cdc_conv2d``, and the choice between them and the library."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.cdc import reference
from kernels.cdc.choices import choose
from kernels.cdc.kernels import direct_fwd_kernel, gemm_fwd_kernel
from kernels.cdc.reference import Pair

DIRECT = {"PIXELS": 128, "OUTPUTS": 16, "num_warps": 4, "enable_fp_fusion": True}
GEMM = {"PIXELS": 64, "OUTPUTS": 64, "CHANNELS": 32, "num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}


def _output(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """An empty result in the memory layout that the library's convolution would give."""
    sides = [
        (size + 2 * p - 2 * d - 1) // s + 1
        for size, s, p, d in zip(x.shape[2:], stride, padding, dilation, strict=True)
    ]
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((x.shape[0], weight.shape[0], *sides), dtype=x.dtype, device=x.device, memory_format=layout)


def _geometry(stride: Pair, padding: Pair, dilation: Pair) -> dict[str, int]:
    names = ("STRIDE", "PADDING", "DILATION")
    pairs = zip(names, (stride, padding, dilation), strict=True)
    return {f"{name}_{side}": pair[i] for name, pair in pairs for i, side in enumerate("HW")}


def direct(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The direct kernel: for few input channels."""
    out = _output(x, weight_v, stride, padding, dilation)
    if out.numel() == 0:
        return out
    n, outputs, height, width = out.shape
    with torch.cuda.device_of(x):
        direct_fwd_kernel[(n, triton.cdiv(height * width, DIRECT["PIXELS"]), triton.cdiv(outputs, DIRECT["OUTPUTS"]))](
            x,
            weight_v.contiguous(),
            weight_c.contiguous(),
            out if bias is None else bias,
            out,
            outputs,
            *x.shape[2:],
            height,
            width,
            *x.stride(),
            *out.stride(),
            C=x.shape[1],
            **_geometry(stride, padding, dilation),
            HAS_BIAS=bias is not None,
            ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
            WIDE=max(x.numel(), out.numel()) >= 2**31,
            **DIRECT,
        )
    return out


def gemm(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The implicit matrix product: for many input channels. fp32 is multiplied as TF32 where torch allows that."""
    out = _output(x, weight_v, stride, padding, dilation)
    if out.numel() == 0:
        return out
    n, outputs, height, width = out.shape
    pixels = n * height * width
    # Folded once, taps first and outputs last, so that neighbouring threads load neighbouring weights.
    weight = reference.fold(weight_v, weight_c).to(x.dtype).permute(2, 3, 1, 0).contiguous()
    with torch.cuda.device_of(x):
        gemm_fwd_kernel[(triton.cdiv(pixels, GEMM["PIXELS"]), triton.cdiv(outputs, GEMM["OUTPUTS"]))](
            x,
            weight,
            out if bias is None else bias,
            out,
            pixels,
            x.shape[1],
            outputs,
            *x.shape[2:],
            height,
            width,
            *x.stride(),
            *out.stride(),
            **_geometry(stride, padding, dilation),
            HAS_BIAS=bias is not None,
            ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
            PRECISION="tf32" if torch.backends.cudnn.allow_tf32 else "ieee",
            WIDE=max(x.numel(), out.numel()) >= 2**31,
            **GEMM,
        )
    return out


IMPLEMENTATIONS = {"library": reference.cdc_conv2d, "direct": direct, "gemm": gemm}


def cdc_conv2d(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The forward pass by the implementation that ``choices.py`` names."""
    run = IMPLEMENTATIONS[choose(x.shape[1], x.dtype)]
    return run(x, weight_v, weight_c, bias, stride, padding, dilation)
