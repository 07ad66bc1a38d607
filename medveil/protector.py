"""The protocol that every protector follows, and the budget that its release is checked against."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from medveil.method import MethodSettings

if TYPE_CHECKING:
    from torch import Tensor

    from medveil.dataset import Dataset
    from medveil.runtime import Runtime, State

Empty = Literal["release", "drop"]


@dataclass(frozen=True)
class Budget:
    """What a protector promises of every saved image.

    ``levels``: the largest change of a pixel in grey levels, or None for no bound.
    ``changed``: the largest share of the elements of an image (pixels times channels) that may change, or None.
    """

    levels: int | None
    changed: float | None = None


class Protector(Protocol):
    """One method of making images unlearnable.

    ``perturb`` is a function of the fitted state, the samples and their ids: it may be called for any samples of the
    fitted data, in any order and on any rank, and returns float32 [N, C, H, W] in [0, 1] on the device of ``images``.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodSettings]]

    config: Any

    def fit(self, data: "Dataset", runtime: "Runtime | None" = None) -> "Protector": ...

    def perturb(self, images: "Tensor", targets: "Tensor", ids: Sequence[str]) -> "Tensor": ...

    def budget(self) -> Budget: ...

    def support(self, targets: "Tensor") -> "Tensor | None":
        """Where a change is allowed, bool and broadcastable to the images [N, 1, H, W]; None: everywhere."""
        ...

    def state_dict(self) -> "State": ...

    def load_state_dict(self, state: "State") -> None: ...
