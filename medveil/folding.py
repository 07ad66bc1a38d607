"""A frozen network for attacks: eval mode, no parameter gradients, each batch-norm folded into its convolution."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from medveil.batchnorm import GlobalBatchNorm
from medveil.shards import kind

M = TypeVar("M", bound=nn.Module)


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Conv2d, Any]]:
    """Each convolution of ``module`` whose next sibling is a batch-norm of its outputs, and that batch-norm."""
    children = list(module.children())
    for before, after in pairwise(children):
        if not isinstance(after, (_BatchNorm, GlobalBatchNorm)):
            continue
        if not isinstance(before, nn.Conv2d) or kind(before) is not nn.Conv2d:
            continue
        if isinstance(after.running_mean, torch.Tensor) and before.out_channels == len(after.running_mean):
            yield before, after
    for child in children:
        yield from _pairs(child)


def _fused(conv: nn.Conv2d, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight [O, C, h, w] and bias [O] of the convolution that does the work of both."""
    return fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _constant(parameter: nn.Parameter) -> nn.Parameter:
    """``parameter`` as a constant, in the precision that autocast, if enabled, would round it to at every call."""
    device, dtype = parameter.device.type, parameter.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return nn.Parameter(parameter.detach().to(dtype), requires_grad=False)


@torch.no_grad()
def folded(module: M) -> M:
    """A copy of ``module`` that computes what it does in eval mode, with its batch-norms folded into convolutions.

    In eval mode a batch-norm is affine with constants, so that W' = W g / sqrt(v + e) and b' = (b - m) g / sqrt(v + e)
    + beta do the work of both. Parameters want no gradients; all but the folded ones share their memory with
    ``module``, so the copy holds until ``module`` trains on. ``module`` itself is left as it is, whatever its mode.
    Modules must define their layers in the order of use, as :class:`medveil.networks.ResNet18` and
    :class:`medveil.networks.UNet` do: a convolution followed by a batch-norm of its width is taken to feed it alone.
    Under autocast the folded weights are kept in its precision, and the copy is to be called under it.
    """
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    memo |= {id(b): b.detach() for b in module.buffers()}
    for conv, norm in _pairs(module):
        fused = copy.deepcopy(conv, dict(memo))
        fused.weight, fused.bias = (_constant(part) for part in _fused(conv, norm))
        memo[id(conv)], memo[id(norm)] = fused, nn.Identity()
    return copy.deepcopy(module, memo).eval()


@torch.no_grad()
def refold(fixed: nn.Module, module: nn.Module) -> None:
    """Bring ``fixed``, made by ``folded(module)``, up to date with ``module``, in the memory it has."""
    # Buffers and what was not folded share their memory already.
    names = {id(part): name for name, part in module.named_modules()}
    found = [(conv, norm, fixed.get_submodule(names[id(conv)])) for conv, norm in _pairs(module)]
    if found and found[0][0].weight.is_cuda and _at_once(fixed, found):
        return
    for conv, norm, kept in found:
        for old, new in zip(kept.parameters(), _fused(conv, norm), strict=True):
            old.copy_(new)


_FOLDERS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def _at_once(fixed: nn.Module, found: list[tuple[nn.Conv2d, Any, nn.Module]]) -> bool:
    """Refold all of ``found`` in one launch, if that can be done."""
    from medveil.kernels.folding import cuda  # needs Triton

    layers = [
        (
            cuda.Layer(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias, *kept.parameters()
            ),
            norm.eps,
        )
        for conv, norm, kept in found
    ]
    folder = _FOLDERS.get(fixed)
    if folder is None or not folder.still(layers):
        if not cuda.takes(layers):
            return False
        folder = _FOLDERS[fixed] = cuda.FoldedNorms(layers)
    folder()
    return True
