"""The control: random signs at the bound. It must not protect; if it does, the experiment is at fault."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.classes import check_region, default_eps, region_of
from medveil.baselines.config import RandomSignsConfig
from medveil.config import build
from medveil.dataset import Dataset, Task
from medveil.kernels import topk_mask
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import to_unit, whole_levels
from medveil.runtime import Runtime, State


class RandomSigns:
    """+eps or -eps with equal chance for every element of the support, a function of id and seed."""

    name: ClassVar[str] = RandomSignsConfig.name
    Config: ClassVar[type[MethodSettings]] = RandomSignsConfig

    def __init__(self, **options: Any) -> None:
        self.config: RandomSignsConfig = build(RandomSignsConfig, options, self.name)
        self.task: Task | None = None

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "RandomSigns":
        """Only notes the task. Raises UserError when the region does not fit it."""
        self.task = data.task
        check_region("image" if self.config.region == "auto" else self.config.region, data.task)
        return self

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        keys = keyed.keys_of(ids, images.device)
        signs = (keyed.words(self.config.seed, "random signs", 0, keys, images.shape[1:]) & 1) * 2 - 1
        noise = self._eps() * signs.to(torch.float32)
        if self.config.k < 100:
            chances = keyed.uniform(self.config.seed, "random support", 0, keys, images.shape[1:])
            noise = noise * topk_mask(chances, self.config.k / 100)
        if (support := self.support(targets)) is not None:
            noise = noise * support
        return torch.clamp(to_unit(images) + noise, 0, 1)

    def budget(self) -> Budget:
        k = self.config.k
        return Budget(levels=whole_levels(self._eps()), changed=k / 100 if k < 100 else None)

    def support(self, targets: Tensor) -> Tensor | None:
        region = self.config.region
        if region == "auto":
            region = "roi+contour" if self.task == "segmentation" else "image"
        return region_of(region, targets, self.config.band)

    def state_dict(self) -> State:
        return {"task": self.task}

    def load_state_dict(self, state: State) -> None:
        self.task = state["task"]

    def _eps(self) -> float:
        if self.config.eps is not None:
            return self.config.eps
        assert self.task is not None
        return default_eps(self.task)
