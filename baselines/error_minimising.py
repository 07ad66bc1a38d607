"""EM as SALM's tables have it: error-minimising noise (Huang et al., ICLR 2021) on every element, SALM with k = 100."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from salm import SALM, SALMConfig
from salm.config import PRESETS


@dataclass(frozen=True)
class ErrorMinimisingConfig(SALMConfig):
    """SALM's settings with nothing masked; ``mode`` strict has no meaning here."""

    k: float = 100.0
    mode: Literal["paper"] = "paper"


class ErrorMinimising(SALM):
    """SALM with k = 100: the noise may move every element."""

    name: ClassVar[str] = "em"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    Config: ClassVar[type] = ErrorMinimisingConfig
