"""relu(conv(x) + other) in eager PyTorch, and its gradients in x and in ``other``."""

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = list[int]


def conv_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    other: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """[N, O, H', W'] in the dtype of ``x``."""
    out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if other is not None:
        out += other
    return out.relu_()


def conv_relu_backward(
    grad: Tensor,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and of ``other``."""
    inner = torch.ops.aten.threshold_backward.default(grad, out, 0)
    grad_x, _, _ = torch.ops.aten.convolution_backward.default(
        inner, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
    )
    return grad_x, inner
