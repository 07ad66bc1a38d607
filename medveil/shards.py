"""Sums over a batch that come out the same, to the last bit, for any number of processes.

A floating-point sum depends on its order, and SALM's sign and top-k make whole steps of last digits. So a batch may be
cut into shards: whatever is summed over samples is summed in each shard, and the shards' sums are added pairwise, as
leaves of one binary tree. Processes hold contiguous subtrees, so the additions are the same ones wherever they happen.
"""

from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def cuts(count: int, parts: int) -> list[slice]:
    """``count`` items as ``parts`` contiguous slices, sizes differing by at most one; halves of halves, if even."""
    if parts % 2:
        bounds = [count * i // parts for i in range(parts + 1)]
        return [slice(a, b) for a, b in pairwise(bounds)]
    half = count // 2
    return cuts(half, parts // 2) + [
        slice(half + part.start, half + part.stop) for part in cuts(count - half, parts // 2)
    ]


def tree_sum(leaves: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape, neighbours first."""
    while len(leaves) > 1:
        leaves = [a if b is None else a + b for a, b in zip_longest(leaves[::2], leaves[1::2])]
    return leaves[0]


def sum_over_ranks(leaf: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum of every rank's ``leaf``, as :func:`tree_sum` has it; ``leaf`` itself outside a process group."""
    if not dist.is_initialized():
        return leaf
    leaves = [torch.empty_like(leaf) for _ in range(dist.get_world_size(group))]
    dist.all_gather(leaves, leaf.contiguous(), group=group)
    return tree_sum(leaves)


def convert(module: nn.Module, shards: int) -> nn.Module:
    """``module``, changed in place: in training its layers compute and sum parameter gradients in ``shards`` shards.

    A layer is any module with parameters of its own that takes one batch [N, ...] and returns one; batch-norms are left
    to :mod:`medveil.batchnorm`. Results are those of the layer on each shard alone. The layers' classes are made here:
    ``module`` can be copied but not pickled.
    """
    for layer in list(module.modules()):
        if layer._parameters and not isinstance(layer, _BatchNorm):
            layer.__class__ = type(type(layer).__name__, (_InShards, type(layer)), {})
            layer.__dict__["shards"] = shards
    return module


def kind(layer: nn.Module) -> type:
    """The class of ``layer``, or that which it had before :func:`convert`."""
    own: type = type(layer)
    return own.__bases__[1] if issubclass(own, _InShards) else own


class _InShards:
    """Mixed into a layer's class by :func:`convert`."""

    shards: int
    training: bool
    _parameters: dict[str, Tensor | None]

    def forward(self, x: Tensor) -> Tensor:
        forward = super().forward  # type: ignore[misc]  # the layer's own
        if not self.training or self.shards == 1:
            out: Tensor = forward(x)
            return out
        own = self._parameters
        copies = {name: None if p is None else _Copies.apply(p, self.shards) for name, p in own.items()}
        outs = []
        try:
            for i, part in enumerate(_Parts.apply(x, self.shards)):
                if len(part) == 0 < len(x):  # its gradients are zeros; torch gives its outputs another memory layout
                    continue
                self._parameters = {name: None if copy is None else copy[i] for name, copy in copies.items()}
                outs.append(forward(part))
        finally:
            self._parameters = own
        return torch.cat(outs)


class _Parts(torch.autograd.Function):
    """A batch [N, ...] as its shards. torch's own slices hand back gradients in another memory layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        return tuple(x[part] for part in cuts(len(x), count))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.cat(gradients), None


class _Copies(torch.autograd.Function):
    """``count`` views of a parameter, whose gradients are summed as :func:`tree_sum` does and not as they arrive."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, count: int) -> tuple[Tensor, ...]:
        return tuple(parameter.detach() for _ in range(count))  # view_as would change strides of size 1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return tree_sum(gradients), None
