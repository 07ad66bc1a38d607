"""EM, error-minimising noise (Huang et al., ICLR 2021), as UMed's and as SALM's tables have it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from medveil.baselines.alternating import Alternation
from medveil.baselines.config import ErrorMinimisingConfig
from medveil.baselines.optimised import KeptNoise
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.runtime import Runtime, SingleProcess, State
from medveil.salm import SALM

_SALMS = [
    *("step_size", "pgd_steps", "transforms", "flip", "padding", "start", "release", "steps", "decay_every"),
    *("batch_size", "learning_rate", "momentum", "weight_decay", "width", "seed"),
]
"""The settings that go to SALM as they are."""


class ErrorMinimising(KeptNoise):
    """Noise that lowers the training loss until nothing is left to learn from the images."""

    name: ClassVar[str] = ErrorMinimisingConfig.name
    Config: ClassVar[type[MethodSettings]] = ErrorMinimisingConfig

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.salm: SALM | None = None

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "ErrorMinimising":
        """Make the noise of ``data``. Raises UserError when a setting does not fit the task."""
        self.begin(data)
        self.salm = None
        config: ErrorMinimisingConfig = self.config
        runtime = runtime or SingleProcess()
        if config.for_salm(data.task):
            if data.task == "segmentation":
                raise UserError("variant salm protects classification sets: take variant alternating for segmentation")
            if config.psnr is not None:
                raise UserError("variant salm makes its noise anew for each image: give a smaller eps instead of psnr")
            self.asked.check_used(data.task)
            self.salm = self._as_salm().fit(data, runtime)
            return self
        if config.start == "stored":
            raise UserError("start stored belongs to variant salm: take start random or zero")
        self.asked.check_used(data.task)
        Alternation(self, data, runtime).run()
        self.match(data, runtime)
        return self

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        if self.salm is not None:
            return self.salm.perturb(images, targets, ids)
        return super().perturb(images, targets, ids)

    def budget(self) -> Budget:
        return super().budget() if self.salm is None else self.salm.budget()

    def state_dict(self) -> State:
        return {**super().state_dict(), "salm": self.salm and self.salm.state_dict()}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.salm = None
        if state["salm"] is not None:
            self.salm = self._as_salm()
            self.salm.load_state_dict(state["salm"])

    def _as_salm(self) -> SALM:
        return SALM(k=100, eps=self.eps, **{name: getattr(self.config, name) for name in _SALMS})
