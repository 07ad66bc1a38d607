"""Batch-norm with the statistics of the global batch on CPU, where torch's SyncBatchNorm does not run.

Shares of a batch may differ in size and may be empty: sums and counts are added over the ranks, not means. They are
summed in :mod:`medveil.shards`' order.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from medveil.shards import cuts, sum_over_ranks, tree_sum


class GlobalBatchNorm(nn.Module):
    """Stands in for ``norm`` (any ``nn.BatchNorm*d``) and holds the same parameters and buffers under the same names.

    In training, mean and variance are those of all ranks' samples together; in evaluation the running statistics are
    used and nothing is exchanged. Input float [N, C, ...], N >= 0. Raises ``ValueError`` like torch when the global
    batch has a single value per channel.
    """

    num_batches_tracked: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, norm: _BatchNorm, group: dist.ProcessGroup | None = None, shards: int = 1) -> None:
        super().__init__()
        self.eps, self.momentum, self.group, self.shards = norm.eps, norm.momentum, group, shards
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        total, mean, variance = global_moments(x.detach(), self.group, self.shards)
        if total == 1:
            raise ValueError(
                f"batch-norm needs more than one value per channel in training, got {tuple(x.shape)} in all"
            )
        if self.training and self.running_mean is not None and total > 0:
            self._track(total, mean, variance)
        out: Tensor = _Normalise.apply(
            x, self.weight, self.bias, mean, variance, self.eps, total, self.group, self.shards
        )
        return out

    @torch.no_grad()
    def _track(self, total: float, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((variance * total / (total - 1)).to(self.running_var.dtype), momentum)


def convert(module: nn.Module, group: dist.ProcessGroup | None = None, shards: int = 1) -> nn.Module:
    """``module`` with every batch-norm replaced in place; a module that is itself a batch-norm is returned replaced.

    ``shards``: of this rank's share of a batch, see :mod:`medveil.shards`.
    """
    if isinstance(module, _BatchNorm):
        return GlobalBatchNorm(module, group, shards)
    for name, child in module.named_children():
        setattr(module, name, convert(child, group, shards))
    return module


def global_moments(x: Tensor, group: dist.ProcessGroup | None, shards: int) -> tuple[float, Tensor, Tensor]:
    """Values per channel over all ranks, and the mean and biased variance of each channel, fp64 [C]."""
    channels = x.shape[1]
    sums = sum_over_ranks(tree_sum([_sums(x[part]) for part in cuts(len(x), shards)]), group)
    total = float(sums[-1])
    mean = sums[:channels] / max(total, 1.0)
    return total, mean, (sums[channels:-1] / max(total, 1.0) - mean * mean).clamp_min(0)


def _sums(x: Tensor) -> Tensor:
    """Of each channel the sum and the sum of squares, and the number of its values; fp64 [2 C + 1]."""
    channels = x.shape[1]
    count = x.numel() // channels if channels else 0
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    if count:
        # Moments in working precision about the mean, combined in fp64: no cancellation.
        variance, mean = torch.var_mean(x.to(_working(x)), dim=_but_channels(x), correction=0)
        mean, variance = mean.double(), variance.double()
        sums[:channels] = count * mean
        sums[channels:-1] = count * (variance + mean * mean)
        sums[-1] = count
    return sums


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        total: float,
        group: dist.ProcessGroup | None,
        shards: int,
    ) -> Tensor:
        scale = torch.rsqrt(variance + eps)
        mean, scale = mean.to(_working(x)), scale.to(_working(x))
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.total, ctx.group, ctx.shards = total, group, shards
        out = (x - _shaped(mean, x)) * _shaped(scale, x)
        if weight is not None and bias is not None:
            out = out * _shaped(weight, x) + _shaped(bias, x)
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        grad = grad.to(_working(x))
        normal = (x - _shaped(mean, x)) * _shaped(scale, x)
        product, dims, parts = grad * normal, _but_channels(x), cuts(len(x), ctx.shards)
        leaves = [torch.stack([grad[part].sum(dims), product[part].sum(dims)]) for part in parts]
        grad_x = None
        if ctx.needs_input_grad[0]:
            sums = sum_over_ranks(tree_sum([leaf.double() for leaf in leaves]), ctx.group)
            means = (sums / max(ctx.total, 1.0)).to(grad.dtype)
            grad_x = grad - _shaped(means[0], x) - normal * _shaped(means[1], x)
            factor = scale if weight is None else scale * weight
            grad_x = (grad_x * _shaped(factor, x)).to(x.dtype)
        # The gradients of weight and bias stay local: data parallelism averages them with all the others.
        local = tree_sum(leaves)
        return (
            grad_x,
            local[1] if ctx.needs_input_grad[1] else None,
            local[0] if ctx.needs_input_grad[2] else None,
            *[None] * 6,
        )


def _working(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _shaped(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))
