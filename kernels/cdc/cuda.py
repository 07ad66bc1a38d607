"""``medveil::cdc_conv2d`` on CUDA: each pass by Triton kernels or by the library, as ``choices.py`` says.

Forward: the weights are folded in one launch, in the precision of x and in the layout that the chosen implementation
reads; the folded kernel goes along to backward, where one launch gives both kernels' gradients.
"""

from typing import Any

from torch import Tensor

from medveil.kernels.cdc.choices import choose
from medveil.kernels.cdc.plan import Choices, Plan, plan_for
from medveil.kernels.cdc.reference import Pair


def planned(x: Tensor, *rest: Any) -> Plan:
    """What is to be done for such a call, by the implementations that ``choices.py`` names; arguments as the
    operator's, then whether a ReLU and the sums are asked for."""
    channels, dtype = x.shape[1], x.dtype
    choices = Choices(
        choose("forward", channels, dtype), choose("input", channels, dtype), choose("weight", channels, dtype)
    )
    return plan_for(choices, x, *rest)


def cdc_conv2d(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[Tensor, Tensor]:
    """The forward pass and the folded kernel."""
    plan = planned(x, weight_v, weight_c, bias, stride, padding, dilation)
    out, _, folded = plan.forward(x, weight_v, weight_c, bias)
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
    plan = planned(x, weight_v, weight_c, bias, stride, padding, dilation, relu, True)
    out, sums, folded = plan.forward(x, weight_v, weight_c, bias)
    assert sums is not None
    return out, sums, folded


def cdc_conv2d_backward(
    grad: Tensor,
    x: Tensor,
    folded: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    """As the reference, empty [0] where not ``wanted``."""
    plan = planned(x, weight_v, weight_c, None, stride, padding, dilation)
    found = plan.gradients(grad, x, folded, wanted)
    return tuple(grad.new_empty(0) if one is None else one for one in found)
