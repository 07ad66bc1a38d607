"""``medveil::conv_relu``: registration, gradients and the public function."""

from typing import Any

import torch
from torch import Tensor, nn

from medveil.kernels.conv_relu import reference

torch.library.define(
    "medveil::conv_relu",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? other, int[2] stride, int[2] padding, int[2] dilation, int groups)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("medveil::conv_relu", "CUDA")
def _cuda(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None, *geometry: Any) -> Tensor:
    """One kernel of cuDNN's, where it has one."""
    if bias is None or x.dtype == torch.float64 or not torch.backends.cudnn.is_acceptable(x):
        return reference.conv_relu(x, weight, bias, other, *geometry)
    if other is None:
        out: Tensor = torch.ops.aten.cudnn_convolution_relu.default(x, weight, bias, *geometry)
    else:
        out = torch.ops.aten.cudnn_convolution_add_relu.default(x, weight, other, 1.0, bias, *geometry)
    return out


torch.library.impl("medveil::conv_relu", "CPU", reference.conv_relu)
torch.library.register_fake("medveil::conv_relu", reference.conv_relu)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _bias, _other, *ctx.geometry = inputs
    ctx.save_for_backward(output, x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_other = reference.conv_relu_backward(grad, *ctx.saved_tensors, *ctx.geometry)
    return grad_x, None, None, grad_other if ctx.needs_input_grad[3] else None, *[None] * 4


torch.library.register_autograd("medveil::conv_relu", _backward, setup_context=_setup_context)


def conv_relu(conv: nn.Conv2d, x: Tensor, other: Tensor | None = None) -> Tensor:
    """``relu(conv(x) + other)``, differentiable once in ``x`` and ``other``; the weights of ``conv`` (zero padding) are
    constants.

    ``x`` [N, C, H, W] floating, ``other`` of the result's shape. Returns the dtype of ``x``, under autocast that of
    autocast. On CUDA one kernel of cuDNN's. Raises ``ValueError`` for weights that want gradients, and for other
    paddings.
    """
    trained = conv.weight.requires_grad or (conv.bias is not None and conv.bias.requires_grad)
    if trained or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError("conv must pad with zeros, by numbers, and its weights must not want gradients")
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    weight, bias = conv.weight.to(x.dtype), None if conv.bias is None else conv.bias.to(x.dtype)
    other = None if other is None else other.to(x.dtype)
    out: Tensor = torch.ops.medveil.conv_relu(
        x, weight, bias, other, conv.stride, conv.padding, conv.dilation, conv.groups
    )
    return out
