"""No protection: the release is the original. The clean reference behind the same protocol."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from medveil.baselines.config import UnprotectedConfig
from medveil.config import build
from medveil.dataset import Dataset
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import to_unit
from medveil.runtime import Runtime, State


class Unprotected:
    """Leaves every image as it is."""

    name: ClassVar[str] = UnprotectedConfig.name
    Config: ClassVar[type[MethodSettings]] = UnprotectedConfig

    def __init__(self, **options: Any) -> None:
        self.config: UnprotectedConfig = build(UnprotectedConfig, options, self.name)

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "Unprotected":
        return self

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        return to_unit(images)

    def budget(self) -> Budget:
        return Budget(levels=0)

    def support(self, targets: Tensor) -> Tensor | None:
        return None

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
