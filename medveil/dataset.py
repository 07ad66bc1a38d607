"""What a data set is to every protector and exploiter: indexable, never a whole tensor, with stable ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from medveil.task import Task as Task


class Batch(NamedTuple):
    """Some samples of a data set, in the order asked for.

    ``images``: uint8 [B, C, H, W], grey levels 0..255.
    ``targets``: uint8 {0, 1} [B, 1, H, W] (segmentation), int64 [B] (classification) or uint8 {0, 1} [B, L]
    (multilabel).
    ``ids``: the stable id of each sample.
    """

    images: Tensor
    targets: Tensor
    ids: list[str]


@runtime_checkable
class Dataset(Protocol):
    """Samples of one size, read by index. ``ids[i]`` names sample ``i`` for ever: noise is keyed by it."""

    @property
    def task(self) -> Task: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes (classification), labels (multilabel) or 1 (segmentation: foreground)."""
        ...

    def __len__(self) -> int: ...
    def read(self, indices: Sequence[int]) -> Batch: ...


@dataclass(frozen=True)
class ArrayDataset:
    """A data set held in memory: uint8 ``images`` [N, C, H, W] with targets and ids as :class:`Batch` states them."""

    images: Tensor
    targets: Tensor
    ids: Sequence[str]
    task: Task
    num_classes: int

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, C, H, W], not {self.images.dtype} {tuple(self.images.shape)}")
        if not len(self.images) == len(self.targets) == len(self.ids):
            raise ValueError(
                f"{len(self.images)} images, {len(self.targets)} targets and {len(self.ids)} ids do not match"
            )

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Batch(self.images[chosen], self.targets[chosen], [self.ids[i] for i in indices])


@dataclass(frozen=True)
class View:
    """``data`` read in another way: what a view does not say itself is as in ``data``. A view defines ``read``."""

    data: Dataset

    @property
    def task(self) -> Task:
        return self.data.task

    @property
    def ids(self) -> Sequence[str]:
        return self.data.ids

    @property
    def channels(self) -> int:
        return self.data.channels

    @property
    def size(self) -> tuple[int, int]:
        return self.data.size

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Subset(View):
    """The samples of ``data`` at ``indices``, in that order."""

    indices: Sequence[int]

    @property
    def ids(self) -> Sequence[str]:
        return [self.data.ids[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Sequence[int]) -> Batch:
        return self.data.read([self.indices[i] for i in indices])
