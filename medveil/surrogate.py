"""Using a network as a fixed function of its input, and creating it from a seed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from medveil import keyed

M = TypeVar("M", bound=nn.Module)


def seeded(make: Callable[[], M], seed: int, purpose: str) -> M:
    """``make()`` with weights that depend on (seed, purpose) alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed.derived_seed(seed, purpose))
        return make()


@contextmanager
def frozen(module: nn.Module, evaluation: bool) -> Iterator[None]:
    """No gradients for the parameters of ``module`` within; in eval mode if ``evaluation``, else in train mode."""
    training = module.training
    wanted = [p.requires_grad for p in module.parameters()]
    module.train(not evaluation).requires_grad_(False)
    try:
        yield
    finally:
        module.train(training)
        for parameter, want in zip(module.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)


def input_gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of the summed ``loss(x)`` with respect to ``x``, detached. Every sample's gradient is its own."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    return gradient
