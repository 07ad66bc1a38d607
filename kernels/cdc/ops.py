"""``medveil::cdc_conv2d``: registration, gradients and the public function."""

from typing import Any

import torch
from torch import Tensor

from kernels.cdc import reference

_ARGUMENTS = "int[2] stride, int[2] padding, int[2] dilation"
torch.library.define(
    "medveil::cdc_conv2d",
    f"(Tensor x, Tensor weight_v, Tensor weight_c, Tensor? bias, {_ARGUMENTS}) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    "medveil::cdc_conv2d_backward",
    f"(Tensor grad, Tensor x, Tensor weight_v, Tensor weight_c, {_ARGUMENTS}, bool[3] wanted)"
    " -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
for _device in ("CPU", "CUDA"):  # the backward pass is the library's (oneDNN, cuDNN) everywhere
    torch.library.impl("medveil::cdc_conv2d_backward", _device, reference.cdc_conv2d_backward)
torch.library.impl("medveil::cdc_conv2d", "CPU", reference.cdc_conv2d)


@torch.library.impl("medveil::cdc_conv2d", "CUDA")
def _cuda(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    from kernels.cdc import cuda  # needs Triton

    return cuda.cdc_conv2d(x, weight_v, weight_c, bias, stride, padding, dilation)


torch.library.register_fake("medveil::cdc_conv2d", reference.cdc_conv2d)
torch.library.register_fake("medveil::cdc_conv2d_backward", reference.cdc_conv2d_backward)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight_v, weight_c, bias, stride, padding, dilation = inputs
    ctx.save_for_backward(x, weight_v, weight_c)
    ctx.geometry = stride, padding, dilation
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight_v, weight_c = ctx.saved_tensors
    needs_x, needs_v, needs_c, needs_bias = ctx.needs_input_grad[:4]
    grad_x, grad_weight, grad_bias = torch.ops.medveil.cdc_conv2d_backward(
        grad, x, weight_v, weight_c, *ctx.geometry, [needs_x, needs_v or needs_c, needs_bias]
    )
    return (
        grad_x if needs_x else None,
        grad_weight if needs_v else None,
        reference.unfold_grad(grad_weight).to(weight_c.dtype) if needs_c else None,
        grad_bias.to(ctx.bias_dtype) if needs_bias else None,
        None,
        None,
        None,
    )


torch.library.register_autograd("medveil::cdc_conv2d", _backward, setup_context=_setup_context)


def _pair(value: int | tuple[int, int] | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def cdc_conv2d(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Central-difference convolution: ``conv(x, w_v) + sum_d w_c(d) [x(r + d) - x(r)]`` (UMed, Eq. 3), zero padding.

    ``x`` [N, C, H, W] floating; ``weight_v`` and ``weight_c`` [O, C, 3, 3]; ``bias`` [O] or None. Returns [N, O, H',
    W'] in the dtype of ``x`` (under autocast: the autocast dtype; the two kernels are folded in their own precision
    first). Differentiable once in all four tensors, at the cost of one convolution forward and one backward.
    Raises ``ValueError`` when the kernels are not two 3x3 kernels of the same shape for the channels of ``x``.
    """
    if weight_v.shape != weight_c.shape or weight_v.ndim != 4 or tuple(weight_v.shape[2:]) != (3, 3):
        raise ValueError(
            f"weight_v and weight_c must both be [O, C, 3, 3], not {list(weight_v.shape)} and {list(weight_c.shape)}"
        )
    if x.ndim != 4 or x.shape[1] != weight_v.shape[1]:
        raise ValueError(f"x must be [N, {weight_v.shape[1]}, H, W] for these kernels, not {list(x.shape)}")
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    out: Tensor = torch.ops.medveil.cdc_conv2d(
        x, weight_v, weight_c, bias, _pair(stride), _pair(padding), _pair(dilation)
    )
    return out
