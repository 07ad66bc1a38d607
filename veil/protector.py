"""Veil: noise that a network which has just begun to learn meets before it meets the image."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medveil.cells import doubled
from medveil.config import build
from medveil.dataset import Dataset
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import to_unit
from medveil.runtime import Runtime, SingleProcess, State
from medveil.surrogate import seeded
from medveil.veil.config import UNFITTED, VeilConfig
from medveil.veil.noise import Classwise, Fixed, Learned
from medveil.veil.place import Place, Shape
from medveil.veil.race import Race
from medveil.veil.tiles import SIDE, TILES
from medveil.veil.training import Training


class Veil:
    """Noise where UMed puts it, or as sparse as SALM's, that tells a young network the mask or the class."""

    name: ClassVar[str] = VeilConfig.name
    Config: ClassVar[type[MethodSettings]] = VeilConfig

    def __init__(self, **options: Any) -> None:
        self.config: VeilConfig = build(VeilConfig, options, "veil")

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "Veil":
        """Fit the noise to ``data``. Raises ``ValueError`` when it is a multi-label set, and UserError for settings
        that say nothing of such data or noise."""
        if data.task not in self.config.tasks:
            raise ValueError(f"Veil protects sets with masks or classes, not {data.task}")
        self.config.check(data.task, data.channels, data.size)
        runtime = runtime or SingleProcess()
        self._create(Shape.of(data), runtime.device)
        if self.config.noise in UNFITTED and data.task == "segmentation":
            return self
        kind = Race if isinstance(self.noise, Fixed) else Training
        work = kind(self.noise, self.place, data, runtime)
        state = runtime.restore()
        done = 0 if state is None else work.resume(state)
        for visit in work.visits(done):
            loss = work.step(done, visit)
            done += 1
            runtime.step(done, work.total, partial(work.checkpoint, done), loss=loss)
        return self

    @torch.no_grad()
    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected images, float32 [N, C, H, W] in [0, 1].

        ``images``: uint8 [N, C, H, W]; ``targets``: their masks, {0, 1} [N, 1, H, W], or classes, int64 [N].
        """
        x = to_unit(images)
        return torch.clamp(x + self.place.bound(x, targets) * self.noise.eval()(x, targets).mean(1), 0, 1)

    def budget(self) -> Budget:
        return self.place.budget()

    def support(self, targets: Tensor) -> Tensor | None:
        return self.place.support(targets)

    def state_dict(self) -> State:
        return {"shape": self.place.shape.state(), "noise": self.noise.state_dict()}

    def load_state_dict(self, state: State) -> None:
        if not hasattr(self, "noise"):
            self._create(Shape.kept(state["shape"]), torch.device("cpu"))
        self.noise.load_state_dict(state["noise"])

    def _create(self, shape: Shape, device: torch.device) -> None:
        self.place = Place(self.config, shape)
        self.noise = seeded(self._noise, self.config.seed, "veil noise")
        self.noise.to(device).to(memory_format=torch.channels_last)

    def _noise(self) -> nn.Module:
        shape = self.place.shape
        cell = self.config.smallest_cell(shape.task, shape.size)
        if shape.task != "segmentation":
            return Classwise(shape.num_classes, shape.channels, shape.size, cell)
        if self.config.noise in UNFITTED | {"raced"}:
            fixed = Fixed(shape.channels, SIDE, doubled(cell, self.config.scales), self.config.colour_cell)
            if self.config.noise in UNFITTED:
                fixed.tile.copy_(TILES[self.config.noise].expand_as(fixed.tile))
            return fixed
        return Learned(self.config, shape.channels, cell)
