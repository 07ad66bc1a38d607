"""Local Binary Patterns: scikit-image's codes, batched, on any device."""

from medveil.kernels.lbp.ops import local_binary_pattern
from medveil.kernels.lbp.texture import grey_levels, texture_map

__all__ = ["grey_levels", "local_binary_pattern", "texture_map"]
