"""UMed's adaptive clip of contour and texture noise (Eqs. 4 to 6)."""

from medveil.kernels.clip.ops import lbp_adaptive_clip
from medveil.kernels.clip.reference import contour_band

__all__ = ["contour_band", "lbp_adaptive_clip"]
