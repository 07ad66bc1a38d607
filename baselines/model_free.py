"""What LSP and AR share: noise that follows from class, id and a secret seed alone, without any model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.classes import class_names, default_eps
from medveil.baselines.config import ModelFreeConfig
from medveil.baselines.matching import scale_to
from medveil.config import build
from medveil.dataset import Batch, Dataset, Task
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import quantise, to_unit, whole_levels
from medveil.runtime import Runtime, SingleProcess, State


class ModelFree(ABC):
    """A pattern per class; for segmentation the outside of the mask is one class and its inside another."""

    name: ClassVar[str]
    Config: ClassVar[type[MethodSettings]]

    def __init__(self, **options: Any) -> None:
        self.config: Any = build(self.Config, options, self.name)
        self.task: Task = "classification"
        self.num_classes = 0
        self.scale = 1.0

    @property
    def eps(self) -> float:
        config: ModelFreeConfig = self.config
        return self.scale * (default_eps(self.task) if config.eps is None else config.eps)

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "ModelFree":
        """Note the task, and find the scale that gives the wanted PSNR: the rest follows from the seed."""
        self.task, self.num_classes, self.scale = data.task, data.num_classes, 1.0
        if self.config.psnr is not None:
            self.scale = scale_to(self.config.psnr, data, runtime or SingleProcess(), self._released)
        return self

    @abstractmethod
    def pattern(self, names: Sequence[str], keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Unscaled noise float32 [N, C, H, W]: for each sample a draw of the class ``names[i]`` by ``keys[i]``."""

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected float32 images [N, C, H, W] in [0, 1] for uint8 ``images``."""
        x = to_unit(images)
        shape = (x.shape[1], x.shape[2], x.shape[3])
        if self.task == "segmentation":
            outside, inside = (self._drawn([name] * len(ids), ids, x, shape) for name in ("outside", "inside"))
            noise = torch.where(targets.bool(), inside, outside)
        else:
            noise = self._drawn(class_names(targets, self.task), ids, x, shape)
        norm = noise.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        noise = noise * (self.eps * math.sqrt(math.prod(shape)) / norm)[:, None, None, None]
        if self.config.clip:
            noise = noise.clamp(-self.eps, self.eps)
        return torch.clamp(x + noise, 0, 1)

    def _released(self, batch: Batch, scale: float) -> Tensor:
        self.scale = scale
        return quantise(self.perturb(*batch), batch.images, self.budget().levels)

    def budget(self) -> Budget:
        return Budget(levels=whole_levels(self.eps) if self.config.clip else None)

    def support(self, targets: Tensor) -> Tensor | None:
        return None

    def state_dict(self) -> State:
        return {"task": self.task, "num_classes": self.num_classes, "scale": self.scale}

    def load_state_dict(self, state: State) -> None:
        self.task, self.num_classes, self.scale = state["task"], state["num_classes"], state["scale"]

    def _drawn(self, names: Sequence[str], ids: Sequence[str], x: Tensor, shape: tuple[int, int, int]) -> Tensor:
        by = ids if self.config.wise == "sample" else [f"class {name}" for name in names]
        return self.pattern(names, keyed.keys_of(by, x.device), shape)


def normal(seed: int, purpose: str, step: int, keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 [len(keys), *shape] (Box and Muller), a function of its arguments."""
    u = keyed.uniform(seed, purpose, step, keys, (2, *shape))
    return (-2 * torch.log1p(-u[:, 0])).sqrt() * torch.cos(2 * math.pi * u[:, 1])


def grouped(names: Sequence[str]) -> dict[str, list[int]]:
    """The places of each name, names in order of appearance."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places
