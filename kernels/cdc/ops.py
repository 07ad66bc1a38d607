"""``medveil::cdc_conv2d``: registration, gradients and the public function."""

from typing import Any

import torch
from torch import Tensor

from medveil.kernels.cdc import reference

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
torch.library.define(
    "medveil::cdc_conv2d_stats",
    f"(Tensor x, Tensor weight_v, Tensor weight_c, Tensor? bias, {_ARGUMENTS}, bool relu) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _register(name: str) -> None:
    """The reference on the CPU and for shapes alone, the function of the same name in ``cuda.py`` on CUDA."""
    operator, implementation = f"medveil::{name}", getattr(reference, name)

    def on_cuda(*arguments: Any) -> Any:
        from medveil.kernels.cdc import cuda  # needs Triton

        return getattr(cuda, name)(*arguments)

    torch.library.impl(operator, "CPU", implementation)
    torch.library.impl(operator, "CUDA", on_cuda)
    torch.library.register_fake(operator, implementation)


for _name in ("cdc_conv2d", "cdc_conv2d_stats", "cdc_conv2d_backward"):
    _register(_name)

# Looked up once, not at every call.
_CDC = torch.ops.medveil.cdc_conv2d.default
_CDC_STATS = torch.ops.medveil.cdc_conv2d_stats.default
_CDC_BACKWARD = torch.ops.medveil.cdc_conv2d_backward.default


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight_v, weight_c, bias, stride, padding, dilation = inputs
    ctx.save_for_backward(x, weight_v, weight_c)
    ctx.geometry = stride, padding, dilation
    ctx.bias_dtype = None if bias is None else bias.dtype


def _setup_stats_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *convolution, relu = inputs
    _setup_context(ctx, tuple(convolution), output[0])
    ctx.save_for_backward(*convolution[:3], output[0])
    ctx.relu = relu


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight_v, weight_c = ctx.saved_tensors[:3]
    needs_x, needs_v, needs_c, needs_bias = ctx.needs_input_grad[:4]
    grad_x, grad_weight, grad_bias = _CDC_BACKWARD(
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


def _stats_backward(ctx: Any, grad: Tensor, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
    out = ctx.saved_tensors[3]
    first, second = grad_sums[:, :, None, None]
    total = grad + (first + 2 * second * out).to(out.dtype)
    if ctx.relu:
        total = torch.ops.aten.threshold_backward(total, out, 0)
    return (*_backward(ctx, total), None)


torch.library.register_autograd("medveil::cdc_conv2d", _backward, setup_context=_setup_context)
torch.library.register_autograd("medveil::cdc_conv2d_stats", _stats_backward, setup_context=_setup_stats_context)


def _pair(value: int | tuple[int, int] | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _prepared(x: Tensor, weight_v: Tensor, weight_c: Tensor) -> Tensor:
    """``x`` in the dtype that autocast asks for; ``ValueError`` where the shapes do not fit."""
    if weight_v.shape != weight_c.shape or weight_v.ndim != 4 or tuple(weight_v.shape[2:]) != (3, 3):
        raise ValueError(
            f"weight_v and weight_c must both be [O, C, 3, 3], not {list(weight_v.shape)} and {list(weight_c.shape)}"
        )
    if x.ndim != 4 or x.shape[1] != weight_v.shape[1]:
        raise ValueError(f"x must be [N, {weight_v.shape[1]}, H, W] for these kernels, not {list(x.shape)}")
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


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
    x = _prepared(x, weight_v, weight_c)
    geometry = _pair(stride), _pair(padding), _pair(dilation)
    out: Tensor = _CDC(x, weight_v, weight_c, bias, *geometry)
    return out


def cdc_conv2d_stats(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    *,
    relu: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`cdc_conv2d`, followed by a ReLU if asked for, and what a batch-norm behind it needs of the result.

    Returns the output [N, O, H', W'] and sums [2, O]: of the output as stored and of its squares over samples and
    positions, fp32 (fp64 for fp64). With n = N H' W': mean = sums[0] / n, biased variance = sums[1] / n - mean^2,
    which loses the digits that a mean much larger than the deviation takes up. Both results are differentiable once
    in all four tensors. Arguments and errors as :func:`cdc_conv2d`.
    """
    x = _prepared(x, weight_v, weight_c)
    geometry = _pair(stride), _pair(padding), _pair(dilation)
    out: tuple[Tensor, Tensor] = _CDC_STATS(x, weight_v, weight_c, bias, *geometry, relu)
    return out
