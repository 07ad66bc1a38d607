"""SALM: sparsity-aware local masking, gradient-ranked noise for classification sets (Sun et al., arXiv 2403.10573)."""

from medveil.salm.config import SALMConfig
from medveil.salm.protector import SALM

__all__ = ["SALM", "SALMConfig"]
