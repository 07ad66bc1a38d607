"""Memory that a training frees is kept for its next step."""

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST_BLOCK = 32 * 2**20
"""In bytes; what glibc allows at most. Larger ones, such as a whole set, still go back to the system."""


@cache
def keep_freed_memory() -> None:
    """Blocks of up to 32 MiB stay with the process when they are freed; only glibc is told so, others are left alone.

    A step on a CPU frees and asks for the same activations again. Given back to the system, each page must be cleared
    at its next use: an eighth of a U-Net's step at 128 pixels.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
