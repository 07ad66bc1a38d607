"""Where noise may lie and how large it may be: UMed's maps of images with masks, SALM's sparsity of classes."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from medveil.dataset import Dataset
from medveil.protector import Budget
from medveil.quantise import whole_levels
from medveil.runtime import State
from medveil.task import Task
from medveil.umed import maps
from medveil.veil.config import VeilConfig


@dataclass(frozen=True)
class Shape:
    """What networks and noise for a data set depend on; ``size``: height and width in pixels."""

    task: Task
    channels: int
    num_classes: int
    size: tuple[int, int]

    @staticmethod
    def of(data: Dataset) -> "Shape":
        return Shape(data.task, data.channels, data.num_classes, data.size)

    @staticmethod
    def kept(state: State) -> "Shape":
        """As :meth:`state` gave it."""
        return Shape(**{**state, "size": tuple(state["size"])})

    def state(self) -> State:
        return {**asdict(self), "size": list(self.size)}


@dataclass(frozen=True)
class Place:
    """Of data of ``shape``."""

    config: VeilConfig
    shape: Shape

    @property
    def has_masks(self) -> bool:
        return self.shape.task == "segmentation"

    @property
    def radius(self) -> float:
        return self.config.radius(self.shape.task)

    def bound(self, x: Tensor, targets: Tensor, known: maps.Maps | None = None) -> Tensor:
        """The largest change of each pixel, broadcastable to ``x`` float [N, C, H, W].

        Of images with masks eps on the contour band and eps times the texture inside, from the maps ``known`` or new
        ones; of others eps.
        """
        if not self.has_masks:
            return torch.full((1, 1, 1, 1), self.radius, device=x.device)
        contour, texture = known or maps.compute(self.config.place, x, targets)
        return self.radius * torch.where(contour, 1.0, texture * targets)

    def budget(self) -> Budget:
        sparse = not self.has_masks and self.config.k < 100
        return Budget(whole_levels(self.radius), changed=self.config.k / 100 if sparse else None)

    def support(self, targets: Tensor) -> Tensor | None:
        """Where a change is allowed, bool [N, 1, H, W]; None: everywhere."""
        return maps.support(self.config.place, targets) if self.has_masks else None

    def cache(self, count: int, device: torch.device) -> maps.MapCache | None:
        """For the maps of ``count`` samples, kept on ``device``; None where there are no masks."""
        return maps.MapCache(self.config.place, count, self.shape.size, device=device) if self.has_masks else None
