"""Random words by counter (Philox), and flips and shifts of images by such words."""

from medveil.kernels.draws.ops import flip_shift, philox_words

__all__ = ["flip_shift", "philox_words"]
