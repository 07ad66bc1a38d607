"""The protector half of EM, TAP and SEP: noise that a fit leaves behind, in whole grey levels, found by stable id."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.classes import check_region, composed, default_eps, membership, region_of
from medveil.baselines.config import OptimisedConfig
from medveil.config import build
from medveil.dataset import Dataset, Task
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import to_unit, whole_levels
from medveil.runtime import State
from medveil.store import rows_of


class KeptNoise:
    """Noise per sample or per class, int8 grey levels [n, C, H, W]: exactly what saving as 8-bit images keeps of it."""

    name: ClassVar[str]
    Config: ClassVar[type[MethodSettings]]

    def __init__(self, **options: Any) -> None:
        self.config: Any = build(self.Config, options, self.name)
        self.task: Task = "classification"
        self.keys: Tensor | None = None
        self.levels: Tensor | None = None

    @property
    def eps(self) -> float:
        config: OptimisedConfig = self.config
        return default_eps(self.task) if config.eps is None else config.eps

    def begin(self, data: Dataset) -> None:
        """Note the task. Raises UserError when the region does not fit it."""
        self.task = data.task
        check_region(self.config.region, data.task)

    def whole(self, noise: Tensor) -> Tensor:
        """``noise`` (float on the [0, 1] scale) in whole grey levels within the bound, int8."""
        bound = whole_levels(self.eps)
        return (noise * 255).round_().clamp_(-bound, bound).to(torch.int8)

    def keep(self, levels: Tensor, keys: Tensor | None) -> None:
        """Keep the final noise in grey ``levels``, int8: of the samples of ``keys``, or one per class."""
        self.keys, self.levels = keys, levels.cpu()

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected float32 images [N, C, H, W] in [0, 1] for uint8 ``images``.

        Raises ``ValueError`` before a fit and, for noise per sample, for an id that was not fitted.
        """
        if self.levels is None:
            raise ValueError(f"{self.name} has no noise yet: fit first")
        if self.keys is None:
            members = membership(targets, self.task, len(self.levels))
            noise = composed(self.levels.to(images.device).float(), members)
        else:
            noise = self.levels[rows_of(self.keys, keyed.keys_of(ids))].to(images.device).float()
        if (where := self.support(targets)) is not None:
            noise = noise * where
        return torch.clamp(to_unit(images) + noise / 255, 0, 1)

    def budget(self) -> Budget:
        return Budget(levels=whole_levels(self.eps))

    def support(self, targets: Tensor) -> Tensor | None:
        return region_of(self.config.region, targets, self.config.band)

    def state_dict(self) -> State:
        return {"task": self.task, "keys": self.keys, "levels": self.levels}

    def load_state_dict(self, state: State) -> None:
        self.task, self.keys, self.levels = state["task"], state["keys"], state["levels"]
