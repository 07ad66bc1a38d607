"""EM, error-minimising noise (Huang et al., ICLR 2021), as UMed's and as SALM's tables have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from medveil.baselines.alternating import Alternation
from medveil.baselines.classes import Wise
from medveil.baselines.optimised import KeptNoise
from medveil.baselines.surrogates import OptimisedConfig, at_least_one
from medveil.config import Levels
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.protector import Budget
from medveil.runtime import Runtime, SingleProcess, State
from medveil.salm import SALM
from medveil.salm.config import PRESETS

_SALMS = [
    *("step_size", "pgd_steps", "transforms", "flip", "padding", "start", "release", "steps", "decay_every"),
    *("batch_size", "learning_rate", "momentum", "weight_decay", "width", "seed"),
]
"""The settings that go to SALM as they are."""


@dataclass(frozen=True)
class ErrorMinimisingConfig(OptimisedConfig):
    """Settings of EM over those of :class:`OptimisedConfig`.

    ``variant`` "alternating" is the EM of UMed's tables, "salm" that of SALM's: SALM with k = 100. "auto":
    "alternating" for segmentation or for noise per class, "salm" otherwise.
    alternating
        Rounds of ``model_steps`` and a pass of ``noise_steps`` sign steps of ``relative_step`` * eps over all samples,
        until the training error (for segmentation 1 - Dice over all pixels) is at most ``stop_error``, at most
        ``rounds``. ``wise``: noise of its own for each sample, or one per class (segmentation: inside and outside the
        mask), the mean over its samples after each pass; its error is measured as the pass begins. ``start`` "random"
        or "zero". ``augment``: the model trains on flipped and cropped protected images.
    salm
        ``step_size`` to ``decay_every`` and ``start`` are SALM's.
    """

    variant: Literal["auto", "alternating", "salm"] = "auto"
    wise: Wise = "sample"
    start: Literal["random", "zero", "stored"] = "random"
    rounds: int = 50
    model_steps: int = 10
    noise_steps: int = 20
    relative_step: float = 0.1
    stop_error: float = 0.01
    augment: bool = False
    step_size: Levels = 1.6 / 255
    pgd_steps: int = 10
    transforms: int = 5
    release: Literal["regenerated", "stored"] = "regenerated"
    steps: int = 5000
    decay_every: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "rounds", "model_steps", "noise_steps", "pgd_steps", "transforms", "steps", "decay_every")
        if not self.relative_step > 0 or not self.step_size > 0:
            raise ValueError("relative_step and step_size must be above 0")
        if not 0 <= self.stop_error < 1:
            raise ValueError("stop_error must be at least 0 and below 1")
        if self.variant == "salm" and (self.wise == "class" or self.region != "image" or self.rounding):
            raise ValueError("variant salm has noise per sample on the whole image, without rounding")
        if self.release == "stored" and self.start != "stored":
            raise ValueError("release stored needs start stored")


class ErrorMinimising(KeptNoise):
    """Noise that lowers the training loss until nothing is left to learn from the images."""

    name: ClassVar[str] = "em"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**PRESETS["paper"]},
        "gpu": {**PRESETS["gpu"], "rounds": 20},
        # For segmentation as many passes of gradients as TAP and SEP have: docs/choices.md.
        "cpu": {
            **PRESETS["cpu"],
            "unet_width": 8,
            "unet_learning_rate": 1e-3,
            "rounds": 6,
            "model_steps": 25,
            "noise_steps": 3,
            "relative_step": 0.4,
        },
    }
    Config: ClassVar[type] = ErrorMinimisingConfig

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.salm: SALM | None = None

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "ErrorMinimising":
        """Make the noise of ``data``. Raises UserError when a setting does not fit the task."""
        self.begin(data)
        config: ErrorMinimisingConfig = self.config
        variant = config.variant
        if variant == "auto":
            plain = data.task != "segmentation" and config.wise == "sample" and not config.rounding
            variant = "salm" if plain else "alternating"
        if variant == "salm":
            if data.task == "segmentation":
                raise UserError("variant salm protects classification sets: take variant alternating for segmentation")
            self.salm = self._as_salm().fit(data, runtime)
            return self
        if config.start == "stored":
            raise UserError("start stored belongs to variant salm: take start random or zero")
        Alternation(self, data, runtime or SingleProcess()).run()
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
        if state["salm"] is not None:
            self.salm = self.salm or self._as_salm()
            self.salm.load_state_dict(state["salm"])

    def _as_salm(self) -> SALM:
        return SALM(k=100, eps=self.eps, **{name: getattr(self.config, name) for name in _SALMS})
