"""``medveil::cdc_conv2d`` on CUDA: each pass by Triton kernels or by the library, as ``choices.py`` says.

Forward: the weights are folded in one launch, in the precision of x and in the layout that the chosen implementation
reads; the folded kernel goes along to backward, where one launch gives both kernels' gradients.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medveil.kernels.cdc import reference
from medveil.kernels.cdc.choices import Implementation, choose
from medveil.kernels.cdc.launchers import fold, gemm, gemm_grad_input, stem, stem_grad_weight, unfold
from medveil.kernels.cdc.reference import Pair
from medveil.kernels.layout import laid_out_like, prefers_channels_last


def _output(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """An empty result in the memory layout that the library's convolution would give."""
    sides = [
        (size + 2 * p - 2 * d - 1) // s + 1
        for size, s, p, d in zip(x.shape[2:], stride, padding, dilation, strict=True)
    ]
    last = prefers_channels_last(x) or prefers_channels_last(weight)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((x.shape[0], weight.shape[0], *sides), dtype=x.dtype, device=x.device, memory_format=layout)


def forward(
    choice: Implementation,
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    geometry: tuple[Pair, Pair, Pair],
    relu: bool,
    sums: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """By one implementation: the output, the sums (empty [0] unless asked for) and the folded kernel."""
    folded = fold(x, weight_v, weight_c, choice)
    if choice == "library":
        out = F.conv2d(x, folded, None if bias is None else bias.to(x.dtype), *geometry)
        out = out.relu() if relu else out
        return out, reference.sums(out) if sums else out.new_empty(0), folded
    out = _output(x, weight_v, *geometry)
    fill = stem if choice == "stem" else gemm
    return out, fill(out, x, folded, bias, *geometry, relu, sums), folded


def cdc_conv2d(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[Tensor, Tensor]:
    """The forward pass by the implementation that ``choices.py`` names, and the folded kernel."""
    choice, geometry = choose("forward", x.shape[1], x.dtype), (stride, padding, dilation)
    out, _, folded = forward(choice, x, weight_v, weight_c, bias, geometry, relu=False, sums=False)
    return out, folded


def cdc_conv2d_stats(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward pass with its epilogue, and the folded kernel."""
    choice, geometry = choose("forward", x.shape[1], x.dtype), (stride, padding, dilation)
    return forward(choice, x, weight_v, weight_c, bias, geometry, relu, sums=True)


def gradients(
    grad: Tensor,
    x: Tensor,
    folded: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """As the reference, each gradient by the implementation that ``choices.py`` names; None where not ``wanted``."""
    ours_x = wanted[0] and stride == [1, 1] and choose("input", x.shape[1], x.dtype) == "gemm"
    ours_weight = wanted[1] and choose("weight", x.shape[1], x.dtype) == "stem"
    left = [wanted[0] and not ours_x, wanted[1] and not ours_weight, wanted[2] and not ours_weight]
    grad_x = grad_v = grad_c = grad_bias = pieces = None
    if any(left):
        grad_x, grad_folded, grad_bias = torch.ops.aten.convolution_backward.default(
            grad, x, folded, [folded.shape[0]], stride, padding, dilation, False, [0, 0], 1, left
        )
        grad_x = laid_out_like(grad_x, x) if left[0] else None
        pieces = grad_folded[None] if left[1] else None
    if ours_x:
        grad_x = gemm_grad_input(grad, x, folded, padding, dilation)
    if ours_weight:
        pieces, of_bias = stem_grad_weight(grad, x, stride, padding, dilation, wanted[2])
        grad_bias = of_bias.to(grad.dtype)
    if pieces is not None:
        grad_v, grad_c = unfold(pieces, weight_v, weight_c)
    return grad_x, grad_v, grad_c, grad_bias if wanted[2] else None


def cdc_conv2d_backward(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """:func:`gradients` as the operator returns them: empty [0] where not wanted."""
    return tuple(grad.new_empty(0) if found is None else found for found in gradients(grad, *rest))
