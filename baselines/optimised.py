"""The protector half of EM, TAP and SEP: noise that a fit leaves behind, in whole grey levels, found by stable id."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.classes import check_region, composed, default_eps, membership, region_of
from medveil.baselines.config import OptimisedConfig
from medveil.baselines.matching import dithered, scale_to
from medveil.config import build
from medveil.dataset import Batch, Dataset, Task
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import quantise, to_unit, whole_levels
from medveil.runtime import Runtime, State
from medveil.store import rows_of


class KeptNoise:
    """Noise per sample or per class, int8 grey levels [n, C, H, W]: exactly what saving as 8-bit images keeps of it."""

    name: ClassVar[str]
    Config: ClassVar[type[MethodSettings]]

    def __init__(self, **options: Any) -> None:
        # As the user has set it; a fit with passes changes the lengths in config.
        self.asked: Any = build(self.Config, options, self.name)
        self.config: Any = self.asked
        self.task: Task = "classification"
        self.keys: Tensor | None = None
        self.levels: Tensor | None = None
        self.scale = 1.0

    @property
    def eps(self) -> float:
        config: OptimisedConfig = self.config
        return default_eps(self.task) if config.eps is None else config.eps

    def begin(self, data: Dataset) -> None:
        """Note the task, and how long the fit is. Raises UserError when the region or the length does not fit."""
        self.task = data.task
        check_region(self.config.region, data.task)
        self.config = self.asked.sized(len(data), data.task)

    def whole(self, noise: Tensor) -> Tensor:
        """``noise`` (float on the [0, 1] scale) in whole grey levels within the bound, int8."""
        bound = whole_levels(self.eps)
        return (noise * 255).round_().clamp_(-bound, bound).to(torch.int8)

    def keep(self, levels: Tensor, keys: Tensor | None) -> None:
        """Keep the final noise in grey ``levels``, int8: of the samples of ``keys``, or one per class."""
        self.keys, self.levels = keys, levels.cpu()

    def match(self, data: Dataset, runtime: Runtime) -> None:
        """Scale the noise that was kept to the PSNR that was asked for. Raises UserError when no scale gives it."""
        if self.config.psnr is not None:
            self.scale = scale_to(self.config.psnr, data, runtime, self._released)

    def _released(self, batch: Batch, scale: float) -> Tensor:
        return quantise(self._protected(batch, scale), batch.images, None)

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected float32 images [N, C, H, W] in [0, 1] for uint8 ``images``.

        Raises ``ValueError`` before a fit and, for noise per sample, for an id that was not fitted.
        """
        return self._protected(Batch(images, targets, list(ids)), self.scale)

    def _protected(self, batch: Batch, scale: float) -> Tensor:
        images, targets, ids = batch
        if self.levels is None:
            raise ValueError(f"{self.name} has no noise yet: fit first")
        if self.keys is None:
            members = membership(targets, self.task, len(self.levels))
            noise = composed(self.levels.to(images.device).float(), members)
        else:
            noise = self.levels[rows_of(self.keys, keyed.keys_of(ids))].to(images.device).float()
        if (where := self.support(targets)) is not None:
            noise = noise * where
        if self.config.psnr is not None:
            keys = keyed.keys_of(ids, images.device)
            chance = keyed.uniform(self.config.seed, "matched noise", 0, keys, images.shape[1:])
            noise = dithered(scale * noise.abs(), chance) * noise.sign()
        return torch.clamp(to_unit(images) + noise / 255, 0, 1)

    def budget(self) -> Budget:
        return Budget(levels=math.ceil(self.scale * whole_levels(self.eps) - 1e-6))

    def support(self, targets: Tensor) -> Tensor | None:
        return region_of(self.config.region, targets, self.config.band)

    def state_dict(self) -> State:
        return {"task": self.task, "keys": self.keys, "levels": self.levels, "scale": self.scale}

    def load_state_dict(self, state: State) -> None:
        self.task, self.keys, self.levels = state["task"], state["keys"], state["levels"]
        self.scale = state["scale"]
