"""UMed: contour- and texture-aware noise for segmentation sets (Lin et al., arXiv 2403.14250)."""

from umed.config import UMedConfig
from umed.protector import UMed

__all__ = ["UMed", "UMedConfig"]
