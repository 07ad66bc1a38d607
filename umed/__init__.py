"""UMed: contour- and texture-aware noise for segmentation sets (Lin et al., arXiv 2403.14250)."""

from typing import TYPE_CHECKING

from medveil.lazy import lazily
from medveil.umed.config import UMedConfig

if TYPE_CHECKING:
    from medveil.umed.protector import UMed
else:
    __getattr__ = lazily(__name__, UMed="protector")

__all__ = ["UMed", "UMedConfig"]
