"""A fit that is cut short, in tests of what goes on from a checkpoint."""

import io
from collections.abc import Callable
from typing import Any

import torch

from medveil.runtime import SingleProcess


class Halting(SingleProcess):
    """Keeps the state of step ``at`` and stops there; started with a state, goes on from it."""

    def __init__(self, at: int | None = None, state: Any = None) -> None:
        super().__init__("cpu")
        self.at, self.state = at, state

    def restore(self) -> Any:
        return self.state

    def step(self, done: int, total: int, state: Callable[[], Any], **metrics: torch.Tensor) -> None:
        if done == self.at:
            self.state = through_a_file(state())
            raise InterruptedError


def through_a_file(state: Any) -> Any:
    """``state`` as a checkpoint keeps it, so that later steps cannot change it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
