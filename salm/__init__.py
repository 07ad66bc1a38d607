"""SALM: sparsity-aware local masking, gradient-ranked noise for classification sets (Sun et al., arXiv 2403.10573)."""

from salm.config import SALMConfig
from salm.protector import SALM

__all__ = ["SALM", "SALMConfig"]
