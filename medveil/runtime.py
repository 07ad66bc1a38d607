"""Where a fit runs. ``launch`` implements the protocol over processes, files and signals; :class:`SingleProcess` is
the plain one.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from medveil.errors import UserError
from medveil.shards import cuts

State = dict[str, Any]
T = TypeVar("T")


class Runtime(Protocol):
    """What a protector or an exploiter may ask of the place it runs in.

    The data-parallel contract is one global batch: every rank walks the same global permutation, takes its slice of
    each batch, and weighs its loss so that averaged gradients are those of the whole batch.
    """

    @property
    def device(self) -> torch.device: ...
    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    @property
    def local_shards(self) -> int:
        """Shards of this rank's slice of a batch: what is to be the same for any number of processes works in each."""
        ...

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` over all ranks."""
        ...

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module`` with gradients averaged over ranks and batch-norm statistics of the global batch.

        Its batch-norms are replaced in place, so the module that was given may still be called directly.
        """
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of network interiors."""
        ...

    def restore(self) -> State | None:
        """The state of the newest complete checkpoint, or None at a first start."""
        ...

    def step(self, done: int, total: int, state: Callable[[], State], **metrics: Tensor) -> None:
        """Tell that ``done`` of ``total`` steps are complete; called at every step boundary.

        ``state`` is called only if a checkpoint is due, and then on every rank alike (it may communicate); rank 0
        writes it. ``metrics`` are zero-dimensional tensors; they are read when they are shown, not at every step.
        """
        ...


class SingleProcess:
    """One process, no files: the default when a protector is used as a library, and in tests."""

    rank = 0
    world = 1
    local_shards = 1

    def __init__(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def restore(self) -> State | None:
        return None

    def step(self, done: int, total: int, state: Callable[[], State], **metrics: Tensor) -> None:
        pass


def local_slice(batch: Sequence[T], runtime: Runtime) -> Sequence[T]:
    """This rank's slice of a global batch: contiguous, sizes differing by at most one."""
    return batch[cuts(len(batch), runtime.world)[runtime.rank]]


def batches(order: Sequence[T], batch_size: int) -> list[Sequence[T]]:
    """``order`` cut into global batches; the last partial one is kept."""
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def joined_batches(order: Sequence[T], batch_size: int) -> list[Sequence[T]]:
    """As :func:`batches`; a last batch of one joins its neighbour, as batch-norm cannot train on a single value."""
    cut = batches(order, batch_size)
    if len(cut) > 1 and len(cut[-1]) == 1:
        cut[-2:] = [[*cut[-2], *cut[-1]]]
    return cut


def trainable_batches(order: Sequence[T], batch_size: int, pixels: int) -> list[Sequence[T]]:
    """:func:`batches` for networks whose last level has so many ``pixels`` of each image.

    Of one pixel, a last batch of a single image joins its neighbour, as batch-norm cannot train on a single value.
    Raises UserError where every batch would be a single image of one pixel.
    """
    if pixels > 1:
        return batches(order, batch_size)
    if min(len(order), batch_size) == 1:
        raise UserError(
            "images of this size come down to a single pixel in the network, and batch-norm cannot train on one value: "
            "give larger images, or at least two with a batch_size of 2 or more"
        )
    return joined_batches(order, batch_size)


def entry_of(state: Mapping[str, Any], key: str) -> Any:
    """``state[key]``, or an error that names what a checkpoint lacks."""
    if key not in state:
        raise ValueError(f"the checkpoint has no {key!r}: it was written by another method or version")
    return state[key]
