"""Which implementation runs each pass of ``medveil::cdc_conv2d`` on CUDA, by input channels and dtype.

**Not measured yet**: stems of 1 to 3 channels take our kernels, where a library convolution is known to leave most of
the machine idle; everything else takes folded weights and the library's convolution. ``benchmarks/run_gpu.py`` prints
the times that a finer choice is to be written from.
"""

from typing import Literal

import torch

Pass = Literal["forward", "input", "weight"]  # the output, and the gradients of x and of the folded kernel
Implementation = Literal["library", "direct", "gemm"]

STEM_CHANNELS = 3
_OURS = (torch.float32, torch.float16, torch.bfloat16)


def choose(what: Pass, channels: int, dtype: torch.dtype) -> Implementation:
    """The implementation of the pass ``what`` for an input of ``channels`` channels in ``dtype``; the library's for a
    dtype that our kernels do not have (fp64)."""
    if channels > STEM_CHANNELS or dtype not in _OURS:
        return "library"
    return "direct" if what == "forward" else "gemm"
