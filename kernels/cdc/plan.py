"""What the passes of a central-difference convolution do on CUDA for one kind of call: found once, then only done.

A call's kind is all that may change a decision or a compiled kernel: shapes, strides, dtypes, the geometry, and which
tensors begin at a multiple of 16 bytes. Beside a library's convolution the host's time for finding all that out anew
would be most of the time that it spends.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medveil.kernels.cdc import launchers, reference
from medveil.kernels.cdc.choices import Implementation, empty_folded
from medveil.kernels.cdc.launchers import Geometry
from medveil.kernels.cdc.prepared import Layout, Prepared
from medveil.kernels.layout import laid_out_like, prefers_channels_last

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class Choices(NamedTuple):
    """Which implementation runs each pass."""

    forward: Implementation
    input: Implementation
    weight: Implementation


LIBRARY = Choices("library", "library", "library")


def _output(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The result, without memory, in the layout that the library's convolution would give."""
    sides = [(size + 2 * p - 2 * d - 1) // s + 1 for size, s, p, d in zip(x.shape[2:], *geometry, strict=True)]
    last = prefers_channels_last(x) or prefers_channels_last(weight)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((x.shape[0], weight.shape[0], *sides), dtype=x.dtype, device="meta", memory_format=layout)


class _Way:
    """Which gradients the library gives and which are ours, for one kind of upstream gradient."""

    def __init__(self, plan: "Plan", grad: Tensor, x: Tensor, folded: Tensor, wanted: list[bool]) -> None:
        ours_x = wanted[0] and plan.geometry[0] == [1, 1] and plan.choices.input == "gemm"
        ours_weight = wanted[1] and plan.choices.weight == "stem"
        left = [wanted[0] and not ours_x, wanted[1] and not ours_weight, wanted[2] and not ours_weight]
        self.library = left if any(left) else None
        self.input: Prepared | None = None
        self.weight: Prepared | None = None
        self.pieces: Layout | None = None
        if ours_x:
            grad_x = plan.grad_x.empty(torch.device("meta"))
            self.input = launchers.gemm_grad_input(grad, grad_x, folded, plan.geometry)
        if ours_weight:
            self.weight, self.memory, self.pieces = launchers.stem_grad_weight(grad, x, plan.geometry, wanted[2])


class Plan:
    """One kind of call; ``x``, the kernels and the bias are looked at, not kept."""

    def __init__(
        self,
        choices: Choices,
        x: Tensor,
        weight_v: Tensor,
        weight_c: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        relu: bool,
        sums: bool,
    ) -> None:
        self.choices, self.geometry, self.relu, self.sums = choices, geometry, relu, sums
        self.library = choices == LIBRARY
        self.outputs = weight_v.shape[0]
        like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        folded = empty_folded(like, weight_v, choices.forward)
        self.folded = Layout.of(folded)
        self._fold = launchers.fold(weight_v, weight_c, folded)
        self._fill: Prepared | None = None
        if choices.forward != "library":
            out = _output(x, weight_v, geometry)
            self.out = Layout.of(out)
            options = geometry, bias is not None, relu, sums
            if choices.forward == "stem":
                self._fill, pieces = launchers.stem(x, out, *options)
            else:
                self._fill, pieces = launchers.gemm(x, out, folded, *options)
            self.partial = Layout.of(torch.empty(pieces, dtype=launchers.accumulator(x), device="meta"))
        self.grad_x, self.grad_v, self.grad_c = (
            Layout.of(torch.empty_like(given, device="meta")) for given in (x, weight_v, weight_c)
        )
        self._ways: dict[tuple[object, ...], _Way] = {}
        self._unfold: dict[tuple[object, ...], Prepared] = {}

    def folded_of(self, weight_v: Tensor, weight_c: Tensor) -> Tensor:
        """The folded kernel."""
        folded = self.folded.empty(weight_v.device)
        with torch.cuda.device_of(weight_v):
            self._fold(weight_v, weight_c, folded)
        return folded

    def unfolded(self, pieces: Tensor, layout: Layout | None = None) -> tuple[Tensor, Tensor]:
        """The gradients of both kernels from that of the folded one, or from its pieces of a ``layout``."""
        grad_v, grad_c = self.grad_v.empty(pieces.device), self.grad_c.empty(pieces.device)
        kind = pieces.shape, pieces.stride(), pieces.dtype, pieces.data_ptr() % 16
        unfold = self._unfold.get(kind)
        if unfold is None:
            layout = layout or Layout.of(pieces[None])
            unfold = self._unfold[kind] = launchers.unfold(layout, grad_v, grad_c)
        with torch.cuda.device_of(pieces):
            unfold(pieces, grad_v, grad_c)
        return grad_v, grad_c

    def forward(
        self, x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The output, the sums [2, O] if the plan is to have them, and the folded kernel."""
        folded = self.folded_of(weight_v, weight_c)
        if self._fill is None:
            out = F.conv2d(x, folded, None if bias is None else bias.to(x.dtype), *self.geometry)
            out = out.relu() if self.relu else out
            return out, reference.sums(out) if self.sums else None, folded
        out = self.out.empty(x.device)
        partial = self.partial.empty(x.device) if self.sums else out
        with torch.cuda.device_of(x):
            self._fill(x, folded, out if bias is None else bias, out, partial)
        return out, partial.sum(0) if self.sums else None, folded

    def gradients(self, grad: Tensor, x: Tensor, folded: Tensor, wanted: list[bool]) -> Gradients:
        """Those of x, both kernels and the bias, as the reference has them; None where not ``wanted``."""
        kind = (*wanted, grad.stride(), grad.dtype, grad.data_ptr() % 16)
        way = self._ways.get(kind)
        if way is None:
            way = self._ways[kind] = _Way(self, grad, x, folded, wanted)
        grad_x = pieces = grad_bias = None
        if way.library is not None:
            grad_x, pieces, grad_bias = torch.ops.aten.convolution_backward.default(
                grad, x, folded, [self.outputs], *self.geometry, False, [0, 0], 1, way.library
            )
            if grad_x is not None and grad_x.stride() != self.grad_x.strides:
                grad_x = laid_out_like(grad_x, x)
        with torch.cuda.device_of(x):
            if way.input is not None:
                grad_x = self.grad_x.empty(x.device)
                way.input(grad, folded, grad_x, grad_x, grad_x)
            if way.weight is not None:
                pieces = way.memory.empty(x.device)
                way.weight(x, grad, pieces)
                grad_bias = pieces[:, :, -1].sum(0).to(grad.dtype) if wanted[2] else None
        grad_v = grad_c = None
        if pieces is not None:
            grad_v, grad_c = self.unfolded(pieces, way.pieces)
        return grad_x, grad_v, grad_c, grad_bias


_plans: dict[tuple[object, ...], Plan] = {}
_MOST = 1024  # kinds of calls that are remembered


def _kind(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.data_ptr() % 16


def plan_for(
    choices: Choices,
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    relu: bool = False,
    sums: bool = False,
) -> Plan:
    """That of calls like this one."""
    kind = (
        choices,
        *stride,
        *padding,
        *dilation,
        relu,
        sums,
        x.get_device(),
        _kind(x),
        _kind(weight_v),
        _kind(weight_c),
        None if bias is None else (bias.dtype, bias.data_ptr() % 16),
        launchers.precision() if x.dtype == torch.float32 else None,
    )
    plan = _plans.get(kind)
    if plan is None:
        if len(_plans) >= _MOST:
            _plans.clear()
        geometry = stride, padding, dilation
        plan = _plans[kind] = Plan(choices, x, weight_v, weight_c, bias, geometry, relu, sums)
    return plan
