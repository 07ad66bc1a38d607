"""Samples brought to the device: a set that fits is held there, a larger one is read ahead in the background."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.dataset import Dataset
from medveil.runtime import batches

_HELD_BYTES = 2 * 2**30
"""What is kept of a set on the device."""
_CHUNK = 256
_AHEAD = 2
_AT_ONCE = 256
"""Groups whose indices are brought to the device at once, where the set is held there."""

T = TypeVar("T")


class Samples(NamedTuple):
    """One batch on the device: images and targets as in :class:`medveil.dataset.Batch`, keys int64 [B]."""

    images: Tensor
    targets: Tensor
    keys: Tensor


class Feed:
    """Batches of ``data`` on ``device``, in the order asked for.

    Sets of up to ``held_bytes`` (2 GiB) are read once and kept on the device as bytes; so a filter or a decoder runs
    once. Others are read anew each time, two batches ahead, by one thread.
    """

    def __init__(self, data: Dataset, device: torch.device, held_bytes: int = _HELD_BYTES) -> None:
        self.data = data
        self.device = device
        self.keys = keyed.keys_of(data.ids, device)
        height, width = data.size
        layers = data.channels + (1 if data.task == "segmentation" else 0)
        self.held: tuple[Tensor, Tensor] | None = None
        if len(data) * layers * height * width <= held_bytes:
            parts = [data.read(chunk) for chunk in batches(range(len(data)), _CHUNK)]
            self.held = (
                torch.cat([part.images for part in parts]).to(device),
                torch.cat([part.targets for part in parts]).to(device),
            )

    @classmethod
    def of_protector(cls, data: Dataset, device: torch.device) -> "Feed":
        """On the CPU, where a copy of the set would be in the machine's memory, everything is read anew."""
        return cls(data, device, _HELD_BYTES if device.type == "cuda" else 0)

    def batches(self, groups: Iterable[Sequence[int]]) -> Iterator[Samples]:
        """One :class:`Samples` for each group of indices; ``groups`` are asked for ahead of what is given."""
        if self.held is not None:
            images, targets = self.held
            waiting_groups = iter(groups)
            while some := list(islice(waiting_groups, _AT_ONCE)):
                # One transfer for many groups: a copy at every step would make the host wait.
                flat = torch.tensor([i for group in some for i in group], dtype=torch.int64).to(self.device)
                for chosen in flat.split([len(group) for group in some]):
                    yield Samples(images[chosen], targets[chosen], self.keys[chosen])
            return
        with ThreadPoolExecutor(1) as reader:
            waiting: deque[Future[tuple[Tensor, Tensor, Tensor]]] = deque()
            for group in groups:
                waiting.append(reader.submit(self._read, group))
                if len(waiting) > _AHEAD:
                    yield self._moved(*waiting.popleft().result())
            while waiting:
                yield self._moved(*waiting.popleft().result())

    def along(self, steps: Iterable[tuple[T, Sequence[int]]]) -> Iterator[tuple[T, Samples]]:
        """As :meth:`batches`, where each group comes with what else its step is to know."""
        known: deque[T] = deque()

        def groups() -> Iterator[Sequence[int]]:
            for one, group in steps:
                known.append(one)
                yield group

        for samples in self.batches(groups()):
            yield known.popleft(), samples

    def _moved(self, images: Tensor, targets: Tensor, chosen: Tensor) -> Samples:
        images, targets, chosen = (part.to(self.device, non_blocking=True) for part in (images, targets, chosen))
        return Samples(images, targets, self.keys[chosen])

    def _read(self, group: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        images, targets, _ = self.data.read(group)
        parts = (images, targets, torch.tensor(group, dtype=torch.int64))
        if self.device.type == "cuda":
            return parts[0].pin_memory(), parts[1].pin_memory(), parts[2].pin_memory()
        return parts
