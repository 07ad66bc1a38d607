"""Surrogates that never grow old: what a network sees in its first steps is what a thief's meets first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Adam

from medveil.networks import ResNet18, UNet, deepest, last_stage, stem_for
from medveil.optimisers import fused_on
from medveil.runtime import Runtime, State
from medveil.surrogate import seeded
from medveil.veil.config import VeilConfig
from medveil.veil.place import Shape


def network(config: VeilConfig, shape: Shape) -> nn.Module:
    """A surrogate for data of ``shape``, of the kind that its thieves train: a U-Net or a ResNet-18."""
    if shape.task == "segmentation":
        return UNet(shape.channels, 1, config.width, config.depth)
    return ResNet18(shape.channels, shape.num_classes, config.width, stem_for(shape.size))


def smallest(config: VeilConfig, shape: Shape) -> int:
    """Pixels of an image of ``shape`` in the last level of :func:`network`, and of a generator."""
    return deepest(shape.size, config.depth) if shape.task == "segmentation" else last_stage(shape.size)


def fresh(create: Callable[[], nn.Module], seed: int, purpose: str) -> nn.Module:
    """``create()`` with weights that depend on (seed, purpose) alone, in the layout that is fastest."""
    return seeded(create, seed, purpose).to(memory_format=torch.channels_last)


class Young:
    """A pool of networks that take turns, one a step, and start anew one after the other.

    The weights that one starts with depend on (seed, its place in the pool, its life) alone.
    """

    def __init__(self, config: VeilConfig, create: Callable[[], nn.Module], runtime: Runtime) -> None:
        self.config, self.create = config, create
        self.nets = [self._fresh(index, 0) for index in range(config.surrogates)]
        for net in self.nets:
            net.to(runtime.device)
        self.wrapped = [runtime.wrap(net) for net in self.nets]
        rate, fused = config.surrogate_learning_rate, fused_on(runtime.device)
        self.optimisers = [Adam(net.parameters(), rate, **fused) for net in self.nets]

    def at(self, step: int) -> tuple[nn.Module, Adam]:
        """The surrogate whose turn ``step`` is, and its optimiser; begun anew if its time has come.

        To be called once for every step, in order.
        """
        turn, index = divmod(step, len(self.nets))
        life = self._life(index, turn)
        if turn > 0 and life != self._life(index, turn - 1):
            self.nets[index].load_state_dict(self._fresh(index, life).state_dict())
            self.optimisers[index].state.clear()
        return self.wrapped[index], self.optimisers[index]

    def _life(self, index: int, turn: int) -> int:
        """Lives are of ``restart`` turns; the first is shorter for all but the first surrogate, so that ages differ."""
        return (turn + index * self.config.restart // len(self.nets)) // self.config.restart

    def _fresh(self, index: int, life: int) -> nn.Module:
        return fresh(self.create, self.config.seed, f"veil surrogate {index} life {life}")

    def state_dict(self) -> State:
        return {
            "nets": [net.state_dict() for net in self.nets],
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def load_state_dict(self, state: State) -> None:
        both: list[tuple[list[Any], str]] = [(self.nets, "nets"), (self.optimisers, "optimisers")]
        for items, key in both:
            for item, kept in zip(items, state[key], strict=True):
                item.load_state_dict(kept)
