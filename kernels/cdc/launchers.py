"""What launches each Triton kernel of ``medveil::cdc_conv2d``.

Launchers also answer for the sums of the epilogue, [2, O] in the accumulator's precision: of the stored outputs and of
their squares, per output channel. Pieces are summed in a fixed order, so results repeat to the bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.cdc.choices import Implementation, empty_folded
from medveil.kernels.cdc.gemm import gemm_fwd_kernel
from medveil.kernels.cdc.reference import Pair
from medveil.kernels.cdc.stem import stem_fwd_kernel, stem_weight_kernel
from medveil.kernels.cdc.weights import fold_kernel, unfold_kernel
from medveil.kernels.layout import needs_64_bits

# In tiles of 4 x 32 pixels; smaller ones for fp32, whose products and operands need many more registers.
STEM = {"ROWS": 4, "COLUMNS": 32, "OUTPUTS": 64, "num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
STEM_IEEE = STEM | {"ROWS": 2, "COLUMNS": 16, "num_stages": 1}
STEM_WEIGHT = {"ROWS": 4, "COLUMNS": 32, "OUTPUTS": 64, "num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
STEM_WEIGHT_FP32 = STEM_WEIGHT | {"ROWS": 2, "COLUMNS": 16, "num_stages": 1}
GEMM = {"PIXELS": 64, "OUTPUTS": 64, "CHANNELS": 32, "num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}
FOLD = {"BLOCK": 512, "num_warps": 4}
UNFOLD = {"SPLITS": 1, "BLOCK": 64, "num_warps": 4}
UNFOLD_PIECES = {"SPLITS": 64, "BLOCK": 1, "num_warps": 4}
PROGRAMS = 396  # of a stem's weight gradient: three on each of an H100's multiprocessors


def accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _constants(x: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> dict[str, Any]:
    """The geometry and the accumulator as compile-time constants."""
    pairs = zip(("STRIDE", "PADDING", "DILATION"), (stride, padding, dilation), strict=True)
    geometry = {f"{name}_{side}": pair[i] for name, pair in pairs for i, side in enumerate("HW")}
    return geometry | {"ACC": tl.float64 if x.dtype == torch.float64 else tl.float32}


def precision() -> str:
    """How fp32 is multiplied: as TF32 where torch allows that to the library."""
    # Not the older allow_tf32, which cannot be read once the newer setting differs between operators.
    settings: Any = torch.backends.cudnn
    return "tf32" if settings.conv.fp32_precision == "tf32" else "ieee"


def _fitted(block: int, size: int) -> int:
    """A block no larger than ``size`` needs; a tensor core's tile has at least 16."""
    return min(block, max(16, triton.next_power_of_2(size)))


def fold(x: Tensor, weight_v: Tensor, weight_c: Tensor, reader: Implementation) -> Tensor:
    """The folded kernel [O, C, 3, 3] in the dtype of ``x``, laid out for ``reader``."""
    folded = empty_folded(x, weight_v, reader)
    pairs = weight_v.shape[0] * weight_v.shape[1]
    if pairs > 0:
        with torch.cuda.device_of(x):
            fold_kernel[(triton.cdiv(pairs, FOLD["BLOCK"]),)](
                weight_v,
                weight_c,
                folded,
                pairs,
                weight_v.shape[1],
                *weight_v.stride(),
                *weight_c.stride(),
                *folded.stride(),
                ACC=tl.float64 if weight_v.dtype == torch.float64 else tl.float32,
                **FOLD,
            )
    return folded


def unfold(pieces: Tensor, weight_v: Tensor, weight_c: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both kernels, in their dtypes and layouts, from that of the folded one: the sum of ``pieces``
    [P, O, C, 3, 3] over the first axis."""
    grad_v, grad_c = torch.empty_like(weight_v), torch.empty_like(weight_c)
    pairs, block = weight_v.shape[0] * weight_v.shape[1], UNFOLD if len(pieces) == 1 else UNFOLD_PIECES
    if pairs > 0:
        with torch.cuda.device_of(pieces):
            unfold_kernel[(triton.cdiv(pairs, block["BLOCK"]),)](
                pieces,
                grad_v,
                grad_c,
                len(pieces),
                pairs,
                weight_v.shape[1],
                *pieces.stride(),
                *grad_v.stride(),
                *grad_c.stride(),
                ACC=tl.float64 if pieces.dtype == torch.float64 else tl.float32,
                **block,
            )
    return grad_v, grad_c


def stem(
    out: Tensor,
    x: Tensor,
    folded: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool,
    sums: bool,
) -> Tensor:
    """Fill ``out`` by the kernel for few input channels; returns the sums, empty [0] unless asked for."""
    n, outputs, height, width = out.shape
    fp32 = precision()
    tile = STEM_IEEE if x.dtype == torch.float32 and fp32 == "ieee" else STEM
    down, across = triton.cdiv(height, tile["ROWS"]), triton.cdiv(width, tile["COLUMNS"])
    partial = out.new_empty((n * down * across, 2, outputs) if sums else 0, dtype=accumulator(x))
    if out.numel() > 0:
        block = tile | {"OUTPUTS": _fitted(tile["OUTPUTS"], outputs)}
        with torch.cuda.device_of(x):
            stem_fwd_kernel[(n * down * across, triton.cdiv(outputs, block["OUTPUTS"]))](
                x,
                folded,
                out if bias is None else bias,
                out,
                partial,
                down,
                across,
                outputs,
                *x.shape[2:],
                height,
                width,
                *x.stride(),
                *out.stride(),
                C=x.shape[1],
                **_constants(x, stride, padding, dilation),
                K=_fitted(64, 9 * x.shape[1]),
                HAS_BIAS=bias is not None,
                RELU=relu,
                SUMS=sums,
                PRECISION=fp32,
                WIDE=needs_64_bits(x, out),
                **block,
            )
    return partial.sum(0) if sums else partial


def gemm(
    out: Tensor,
    x: Tensor,
    folded: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool = False,
    sums: bool = False,
    turned: bool = False,
) -> Tensor:
    """Fill ``out`` by the implicit matrix product with ``folded`` [O, C, 3, 3], its taps backwards if ``turned``;
    returns the sums, empty [0] unless asked for."""
    n, outputs, height, width = out.shape
    pixels = n * height * width
    blocks = triton.cdiv(pixels, GEMM["PIXELS"])
    partial = out.new_empty((blocks, 2, outputs) if sums else 0, dtype=accumulator(x))
    if out.numel() > 0:
        block = GEMM | {"OUTPUTS": _fitted(GEMM["OUTPUTS"], outputs)}
        with torch.cuda.device_of(x):
            gemm_fwd_kernel[(blocks, triton.cdiv(outputs, block["OUTPUTS"]))](
                x,
                folded,
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
                folded.stride(1),
                folded.stride(0),
                folded.stride(3),
                **_constants(x, stride, padding, dilation),
                TURNED=turned,
                HAS_BIAS=bias is not None,
                RELU=relu,
                SUMS=sums,
                PRECISION=precision(),
                WIDE=needs_64_bits(x, out),
                **block,
            )
    return partial.sum(0) if sums else partial


def gemm_grad_input(grad: Tensor, x: Tensor, folded: Tensor, padding: Pair, dilation: Pair) -> Tensor:
    """The gradient of x at stride 1: the forward product over ``grad`` with the folded kernel turned by half a turn,
    input and output channels exchanged."""
    out = torch.empty_like(x)
    outer = [2 * d - p for d, p in zip(dilation, padding, strict=True)]
    gemm(out, grad, folded.transpose(0, 1), None, [1, 1], outer, dilation, turned=True)
    return out


def stem_grad_weight(
    grad: Tensor, x: Tensor, stride: Pair, padding: Pair, dilation: Pair, bias: bool
) -> tuple[Tensor, Tensor]:
    """The gradient of the folded kernel of a stem in pieces [P, O, C, 3, 3] to be added up, and that of the bias [O],
    empty [0] unless asked for; both in the accumulator's precision."""
    n, outputs, height, width = grad.shape
    channels = x.shape[1]
    tile = STEM_WEIGHT_FP32 if x.dtype == torch.float32 else STEM_WEIGHT
    down, across = triton.cdiv(height, tile["ROWS"]), triton.cdiv(width, tile["COLUMNS"])
    tiles = n * down * across
    each = max(1, triton.cdiv(tiles, PROGRAMS))
    programs, columns = max(1, triton.cdiv(tiles, each)), 9 * channels + bias
    partial = grad.new_empty((programs, outputs, columns), dtype=accumulator(x))
    if partial.numel() > 0:
        block = tile | {"OUTPUTS": _fitted(tile["OUTPUTS"], outputs)}
        with torch.cuda.device_of(x):
            stem_weight_kernel[(programs, triton.cdiv(outputs, block["OUTPUTS"]))](
                x,
                grad,
                partial,
                tiles,
                each,
                down,
                across,
                outputs,
                *x.shape[2:],
                height,
                width,
                *x.stride(),
                *grad.stride(),
                C=channels,
                **_constants(x, stride, padding, dilation),
                K=_fitted(64, columns),
                BIAS=bias,
                PRECISION=precision(),
                WIDE=needs_64_bits(x, grad),
                **block,
            )
    pieces = partial[:, :, : 9 * channels].unflatten(2, (3, 3, channels)).permute(0, 1, 4, 2, 3)
    return pieces, partial[:, :, -1].sum(0) if bias else grad.new_empty(0)
