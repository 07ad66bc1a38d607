"""The convolutions of a network and nothing else: about the least time that a step with the library's can take.

A training step is counted one small gradient too many, that of its images.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Call(NamedTuple):
    layer: nn.Conv2d
    input: Tensor
    gradient: Tensor  # of the result


def _calls(net: nn.Module, images: Tensor) -> list[_Call]:
    """Each convolution that ``net`` computes of ``images`` [N, C, H, W], with tensors of its shapes and layouts."""
    found: list[_Call] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        found.append(_Call(layer, given[0].detach().clone(), torch.randn_like(result)))

    hooks = [module.register_forward_hook(note) for module in net.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return found


def alone(net: nn.Module, images: Tensor, parameters: bool) -> Callable[[], None]:
    """What runs every convolution that ``net`` computes of ``images`` [N, C, H, W], forward and backward: with the
    gradient of its input, and of its weight if ``parameters``."""
    calls = _calls(net, images)

    @torch.no_grad()
    def run() -> None:
        for layer, given, gradient in calls:
            geometry = layer.stride, layer.padding, layer.dilation
            torch.nn.functional.conv2d(given, layer.weight, layer.bias, *geometry)
            torch.ops.aten.convolution_backward(
                gradient, given, layer.weight, None, *geometry, False, [0, 0], 1, [True, parameters, False]
            )

    return run
