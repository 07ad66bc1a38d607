"""SALM: sparsity-aware local masking, gradient-ranked noise for classification sets (Sun et al., arXiv 2403.10573)."""

from typing import TYPE_CHECKING

from medveil.lazy import lazily
from medveil.salm.config import SALMConfig

if TYPE_CHECKING:
    from medveil.salm.protector import SALM
else:
    __getattr__ = lazily(__name__, SALM="protector")

__all__ = ["SALM", "SALMConfig"]
