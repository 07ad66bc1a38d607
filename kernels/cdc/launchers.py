"""The launch of each Triton kernel of ``medveil::cdc_conv2d``, prepared from tensors that need no memory: their shapes,
strides and dtypes are all that is looked at.

Pieces of sums are added up in a fixed order, so results repeat to the bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.cdc.gemm import gemm_fwd_kernel
from medveil.kernels.cdc.prepared import Layout, Prepared
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

Geometry = tuple[Pair, Pair, Pair]  # stride, padding, dilation


def accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _in_triton(x: Tensor) -> Any:
    """The accumulator's dtype, as Triton calls it."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def precision() -> str:
    """How fp32 is multiplied: as TF32 where torch allows that to the library."""
    # Not the older allow_tf32, which cannot be read once the newer setting differs between operators.
    settings: Any = torch.backends.cudnn
    return "tf32" if settings.conv.fp32_precision == "tf32" else "ieee"


def _product(x: Tensor, out: Tensor, geometry: Geometry) -> dict[str, Any]:
    """Compile-time constants of every product of windows of ``x``: the geometry, and in what it is calculated."""
    pairs = zip(("STRIDE", "PADDING", "DILATION"), geometry, strict=True)
    sides = {f"{name}_{side}": pair[i] for name, pair in pairs for i, side in enumerate("HW")}
    return sides | {"ACC": _in_triton(x), "PRECISION": precision(), "WIDE": needs_64_bits(x, out)}


def _fitted(block: int, size: int) -> int:
    """A block no larger than ``size`` needs; a tensor core's tile has at least 16."""
    return min(block, max(16, triton.next_power_of_2(size)))


def fold(weight_v: Tensor, weight_c: Tensor, folded: Tensor) -> Prepared:
    """``folded`` [O, C, 3, 3] from both kernels: takes the three."""
    outputs, channels = weight_v.shape[:2]
    numbers = outputs * channels, channels, *weight_v.stride(), *weight_c.stride(), *folded.stride()
    blocks = triton.cdiv(outputs * channels, FOLD["BLOCK"])
    return Prepared(fold_kernel, (blocks, 1), numbers, {"ACC": _in_triton(weight_v), **FOLD})


def unfold(pieces: Layout, grad_v: Tensor, grad_c: Tensor) -> Prepared:
    """Both kernels' gradients from that of the folded one, which is the sum of ``pieces`` [P, O, C, 3, 3] over the
    first axis: takes the pieces and the two."""
    outputs, channels = grad_v.shape[:2]
    count = pieces.shape[0]
    numbers = count, outputs * channels, channels, *pieces.strides, *grad_v.stride(), *grad_c.stride()
    block = UNFOLD if count == 1 else UNFOLD_PIECES
    acc = tl.float64 if pieces.dtype == torch.float64 else tl.float32
    blocks = triton.cdiv(outputs * channels, block["BLOCK"])
    return Prepared(unfold_kernel, (blocks, 1), numbers, {"ACC": acc, **block})


def stem(
    x: Tensor, out: Tensor, geometry: Geometry, biased: bool, relu: bool, sums: bool
) -> tuple[Prepared, tuple[int, ...]]:
    """``out`` by the kernel for few input channels: takes x, the folded kernel, the bias (or anything), ``out`` and the
    pieces of the sums (or anything), whose shape [P, 2, O] it tells."""
    n, outputs, height, width = out.shape
    tile = STEM_IEEE if x.dtype == torch.float32 and precision() == "ieee" else STEM
    down, across = triton.cdiv(height, tile["ROWS"]), triton.cdiv(width, tile["COLUMNS"])
    block = tile | {"OUTPUTS": _fitted(tile["OUTPUTS"], outputs)}
    numbers = down, across, outputs, *x.shape[2:], height, width, *x.stride(), *out.stride()
    kinds = {"C": x.shape[1], "K": _fitted(64, 9 * x.shape[1]), "HAS_BIAS": biased, "RELU": relu, "SUMS": sums}
    grid = n * down * across, triton.cdiv(outputs, block["OUTPUTS"])
    made = Prepared(stem_fwd_kernel, grid, numbers, kinds | _product(x, out, geometry) | block)
    return made, (grid[0], 2, outputs)


def gemm(
    x: Tensor,
    out: Tensor,
    folded: Tensor,
    geometry: Geometry,
    biased: bool = False,
    relu: bool = False,
    sums: bool = False,
    turned: bool = False,
) -> tuple[Prepared, tuple[int, ...]]:
    """As :func:`stem`, by the implicit matrix product with ``folded`` [O, C, 3, 3], its taps backwards if
    ``turned``."""
    n, outputs, height, width = out.shape
    pixels = n * height * width
    block = GEMM | {"OUTPUTS": _fitted(GEMM["OUTPUTS"], outputs)}
    sizes = pixels, x.shape[1], outputs, *x.shape[2:], height, width
    of_folded = folded.stride(1), folded.stride(0), folded.stride(3)
    kinds = {"TURNED": turned, "HAS_BIAS": biased, "RELU": relu, "SUMS": sums}
    grid = triton.cdiv(pixels, GEMM["PIXELS"]), triton.cdiv(outputs, block["OUTPUTS"])
    numbers = *sizes, *x.stride(), *out.stride(), *of_folded
    made = Prepared(gemm_fwd_kernel, grid, numbers, kinds | _product(x, out, geometry) | block)
    return made, (grid[0], 2, outputs)


def gemm_grad_input(grad: Tensor, grad_x: Tensor, folded: Tensor, geometry: Geometry) -> Prepared:
    """The gradient of x at stride 1: the forward product over ``grad`` with the folded kernel turned by half a turn,
    input and output channels exchanged. Takes grad, the folded kernel, anything, ``grad_x`` and anything."""
    stride, padding, dilation = geometry
    outer = [2 * d - p for d, p in zip(dilation, padding, strict=True)]
    return gemm(grad, grad_x, folded.transpose(0, 1), (stride, outer, dilation), turned=True)[0]


def stem_grad_weight(grad: Tensor, x: Tensor, geometry: Geometry, biased: bool) -> tuple[Prepared, Layout, Layout]:
    """The gradient of the folded kernel of a stem, in pieces to be added up: takes x, grad and the memory of the
    pieces. That memory [P, O, 9 C (+ 1)], its last column the bias's gradient if ``biased``; and the pieces [P, O, C,
    3, 3] in it."""
    n, outputs, height, width = grad.shape
    channels = x.shape[1]
    tile = STEM_WEIGHT_FP32 if x.dtype == torch.float32 else STEM_WEIGHT
    down, across = triton.cdiv(height, tile["ROWS"]), triton.cdiv(width, tile["COLUMNS"])
    tiles = n * down * across
    each = max(1, triton.cdiv(tiles, PROGRAMS))
    programs, columns = max(1, triton.cdiv(tiles, each)), 9 * channels + biased
    block = tile | {"OUTPUTS": _fitted(tile["OUTPUTS"], outputs)}
    sizes = tiles, each, down, across, outputs, *x.shape[2:], height, width
    numbers = *sizes, *x.stride(), *grad.stride()
    kinds = {"C": channels, "K": _fitted(64, columns), "BIAS": biased}
    grid = programs, triton.cdiv(outputs, block["OUTPUTS"])
    made = Prepared(stem_weight_kernel, grid, numbers, kinds | _product(x, grad, geometry) | block)
    memory = torch.empty((programs, outputs, columns), dtype=accumulator(x), device="meta")
    pieces = memory[:, :, : 9 * channels].unflatten(2, (3, 3, channels)).permute(0, 1, 4, 2, 3)
    return made, Layout.of(memory), Layout.of(pieces)
