"""UMed: contour- and texture-aware noise for segmentation sets (Lin et al., arXiv 2403.14250)."""

from medveil.umed.config import UMedConfig
from medveil.umed.protector import UMed

__all__ = ["UMed", "UMedConfig"]
