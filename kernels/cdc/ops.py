"""``medveil::cdc_conv2d``: registration, gradients and the public function."""

import functools
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

from medveil.kernels.cdc import reference
from medveil.kernels.cdc.choices import choose, empty_folded
from medveil.kernels.cdc.reference import Pair
from medveil.kernels.registration import register

if TYPE_CHECKING:
    from medveil.kernels.cdc.plan import Plan  # needs Triton

_GEOMETRY = "int[2] stride, int[2] padding, int[2] dilation"
_INPUTS = f"(Tensor x, Tensor weight_v, Tensor weight_c, Tensor? bias, {_GEOMETRY}"
# Forward also gives the folded kernel, for backward: empty [0] on the CPU, which folds anew in memory that it keeps.
for _name, _schema in (
    ("cdc_conv2d", f"{_INPUTS}) -> (Tensor, Tensor)"),
    ("cdc_conv2d_stats", f"{_INPUTS}, bool relu) -> (Tensor, Tensor, Tensor)"),
    (
        "cdc_conv2d_backward",
        f"(Tensor grad, Tensor x, Tensor folded, Tensor weight_v, Tensor weight_c, {_GEOMETRY}, bool[3] wanted)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
    ),
):
    torch.library.define(f"medveil::{_name}", _schema, tags=(torch.Tag.pt2_compliant_tag,))


def _kept(x: Tensor, weight_v: Tensor) -> Tensor:
    if x.device.type == "cpu":
        return x.new_empty(0)
    return empty_folded(x, weight_v, choose("forward", x.shape[1], x.dtype))


def _cdc_conv2d(*inputs: Any) -> tuple[Tensor, Tensor]:
    return reference.cdc_conv2d(*inputs), _kept(*inputs[:2])


def _cdc_conv2d_stats(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    return *reference.cdc_conv2d_stats(*inputs), _kept(*inputs[:2])


def _cdc_conv2d_backward(grad: Tensor, x: Tensor, _folded: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return reference.cdc_conv2d_backward(grad, x, *rest)


for _name, _implementation in (
    ("cdc_conv2d", _cdc_conv2d),
    ("cdc_conv2d_stats", _cdc_conv2d_stats),
    ("cdc_conv2d_backward", _cdc_conv2d_backward),
):
    register(_name, _implementation, _implementation, "medveil.kernels.cdc.cuda")

# Looked up once, not at every call.
_CDC = torch.ops.medveil.cdc_conv2d.default
_CDC_STATS = torch.ops.medveil.cdc_conv2d_stats.default
_CDC_BACKWARD = torch.ops.medveil.cdc_conv2d_backward.default


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight_v, weight_c, bias, *ctx.geometry = inputs[:7]
    folded = output[-1]
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(folded)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, folded, weight_v, weight_c)


def _setup_stats_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _setup_context(ctx, inputs, output)
    ctx.save_for_backward(inputs[0], output[-1], *inputs[1:3], output[0])
    ctx.relu = inputs[7]


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 7
    x, folded, weight_v, weight_c = ctx.saved_tensors[:4]
    needs_x, needs_v, needs_c, needs_bias = ctx.needs_input_grad[:4]
    wanted = [needs_x, needs_v or needs_c, needs_bias]
    grad_x, grad_v, grad_c, grad_bias = _CDC_BACKWARD(grad, x, folded, weight_v, weight_c, *ctx.geometry, wanted)
    return (
        grad_x if needs_x else None,
        grad_v if needs_v else None,
        grad_c if needs_c else None,
        grad_bias.to(ctx.bias_dtype) if needs_bias else None,
        None,
        None,
        None,
    )


def _stats_backward(ctx: Any, grad: Tensor | None, grad_sums: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    out = ctx.saved_tensors[4]
    total = grad
    if grad_sums is not None:
        first, second = grad_sums[:, :, None, None]
        of_sums = (first + 2 * second * out).to(out.dtype)
        total = of_sums if grad is None else grad + of_sums
    if ctx.relu and total is not None:
        total = torch.ops.aten.threshold_backward(total, out, 0)
    return (*_backward(ctx, total), None)


torch.library.register_autograd("medveil::cdc_conv2d", _backward, setup_context=_setup_context)
torch.library.register_autograd("medveil::cdc_conv2d_stats", _stats_backward, setup_context=_setup_stats_context)


@functools.cache
def _cuda() -> ModuleType:
    from medveil.kernels.cdc import cuda  # needs Triton

    return cuda


class _Folded(torch.autograd.Function):
    """The folded kernel of both kernels, by a plan."""

    @staticmethod
    def forward(ctx: Any, weight_v: Tensor, weight_c: Tensor, plan: "Plan") -> Tensor:
        ctx.plan = plan
        return plan.folded_of(weight_v, weight_c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.plan.unfolded(grad), None


class _Direct(torch.autograd.Function):
    """Both passes by a plan that has kernels of ours in them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, plan: "Plan") -> Tensor:
        out, _, folded = plan.forward(x, weight_v, weight_c, bias)
        ctx.plan, ctx.bias_dtype = plan, None if bias is None else bias.dtype
        ctx.save_for_backward(x, folded)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs_x, needs_v, needs_c, needs_bias = ctx.needs_input_grad[:4]
        wanted = [needs_x, needs_v or needs_c, needs_bias]
        grad_x, grad_v, grad_c, grad_bias = ctx.plan.gradients(grad, *ctx.saved_tensors, wanted)
        return grad_x, grad_v, grad_c, grad_bias.to(ctx.bias_dtype) if needs_bias else None, None


def direct(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """What the registered operator does on CUDA, past the dispatcher: its ways through Python and back take the host
    longer than everything else. Where the convolution is the library's, it is left to torch's own autograd too."""
    plan = _cuda().planned(x, weight_v, weight_c, bias, stride, padding, dilation)
    if plan.library:
        folded = _Folded.apply(weight_v, weight_c, plan)
        bias = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, folded, bias, stride, padding, dilation)
    out: Tensor = _Direct.apply(x, weight_v, weight_c, bias, plan)
    return out


DIRECT = {"cuda"}  # the devices whose calls may go past the dispatcher


def _unwatched(x: Tensor) -> bool:
    """Whether ``x`` is a real tensor that nobody watches: no compiler, mode or transform, no shapes alone."""
    if type(x) is not Tensor or is_compiling():
        return False
    return not torch._C._len_torch_dispatch_stack() and not torch._C._are_functorch_transforms_active()


def _pair(value: int | tuple[int, int] | list[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _prepared(x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None) -> Tensor:
    """``x`` in the dtype that autocast asks for; ``ValueError`` where it or the shapes do not fit."""
    if weight_v.shape != weight_c.shape or weight_v.ndim != 4 or tuple(weight_v.shape[2:]) != (3, 3):
        raise ValueError(
            f"weight_v and weight_c must both be [O, C, 3, 3], not {list(weight_v.shape)} and {list(weight_c.shape)}"
        )
    if x.ndim != 4 or x.shape[1] != weight_v.shape[1]:
        raise ValueError(f"x must be [N, {weight_v.shape[1]}, H, W] for these kernels, not {list(x.shape)}")
    if bias is not None and bias.shape != weight_v.shape[:1]:  # our kernels would read beyond its end
        raise ValueError(f"bias must be [{weight_v.shape[0]}] for these kernels, not {list(bias.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be floating, not {x.dtype}: divide grey levels by 255")
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
    Raises ``ValueError`` when the kernels are not two 3x3 kernels of the same shape for the channels of ``x``, when the
    bias is not one number for each output, and when ``x`` is not floating.
    """
    x = _prepared(x, weight_v, weight_c, bias)
    inputs = x, weight_v, weight_c, bias, _pair(stride), _pair(padding), _pair(dilation)
    if x.device.type in DIRECT and _unwatched(x):
        return direct(*inputs)
    out: Tensor = _CDC(*inputs)[0]
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
    x = _prepared(x, weight_v, weight_c, bias)
    geometry = _pair(stride), _pair(padding), _pair(dilation)
    out, sums, _ = _CDC_STATS(x, weight_v, weight_c, bias, *geometry, relu)
    return out, sums
