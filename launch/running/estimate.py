"""About how long a fit or a training would take, from a few of its steps on this machine."""

import time
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from medveil.dataset import Dataset, Subset
from medveil.runtime import Runtime, SingleProcess, State

SECONDS = 4.0
"""How long steps are timed."""


class _Enough(Exception):
    """The stopwatch has seen what it needs."""


class Stopwatch(SingleProcess):
    """Times steps until ``seconds`` are over, and ends the fit then. The first step, which warms up, is not counted."""

    def __init__(self, device: torch.device, dtype: torch.dtype, seconds: float) -> None:
        super().__init__(device, dtype)
        self.seconds = seconds
        self.total = self.counted = 0
        self._begun = self._ended = 0.0

    @property
    def per_step(self) -> float:
        return (self._ended - self._begun) / self.counted if self.counted else 0.0

    def step(self, done: int, total: int, state: Callable[[], State], **metrics: Tensor) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._ended = time.monotonic()
        if not self.total:
            self.total, self._begun = total, self._ended
        else:
            self.counted += 1
        if self._ended - self._begun >= self.seconds:
            raise _Enough

    def watch(self, fit: Callable[[Runtime], object]) -> None:
        """Run ``fit`` until it ends or time is up."""
        with suppress(_Enough):
            fit(self)


def fit_seconds(
    fit: Callable[[Dataset, Runtime], object], data: Dataset, batch_size: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Seconds that ``fit`` of ``data`` would take: its number of steps times what one takes.

    One step on all of ``data`` tells the number. The steps that are timed are those of a fit of two batches, so that
    phases that follow each other by epochs (generators and surrogate, training and attack) come with their shares.
    """
    whole = Stopwatch(device, dtype, 0.0)
    begun = time.monotonic()
    whole.watch(lambda runtime: fit(data, runtime))
    first = time.monotonic() - begun
    if whole.total <= 1:
        return first
    small = Stopwatch(device, dtype, SECONDS)
    some = Subset(data, range(min(len(data), 2 * batch_size)))
    small.watch(lambda runtime: fit(some, runtime))
    return first + small.per_step * (whole.total - 1)
