"""Which implementation runs each pass of ``medveil::cdc_conv2d`` on CUDA, by input channels and dtype.

**Not measured yet**: stems of 1 to 3 channels take our kernels, where a library convolution is known to leave most of
the machine idle; everything else takes folded weights and the library's convolution. ``benchmarks/run_gpu.py`` prints
the times that a finer choice is to be written from.
"""

from typing import Literal

import torch
from torch import Tensor

from medveil.kernels.layout import prefers_channels_last

Pass = Literal["forward", "input", "weight"]  # the output, and the gradients of x and of the folded kernel
Implementation = Literal["library", "stem", "gemm"]

STEM_CHANNELS = 3
_OURS = (torch.float32, torch.float16, torch.bfloat16)


def choose(what: Pass, channels: int, dtype: torch.dtype) -> Implementation:
    """The implementation of the pass ``what`` for an input of ``channels`` channels in ``dtype``; the library's for a
    dtype that our kernels do not have (fp64)."""
    if channels > STEM_CHANNELS or dtype not in _OURS:
        return "library"
    return "gemm" if what == "input" else "stem"


def empty_folded(x: Tensor, weight: Tensor, reader: Implementation) -> Tensor:
    """Room for the folded kernel [O, C, 3, 3] in the dtype of ``x``, laid out for who reads it: taps first and outputs
    last for our own kernels, so that neighbouring threads load neighbouring weights, else as the library would lay out
    the result."""
    outputs, channels = weight.shape[:2]
    if reader != "library":
        return x.new_empty(3, 3, channels, outputs).permute(3, 2, 0, 1)
    last = prefers_channels_last(x) or prefers_channels_last(weight)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(weight.shape, dtype=x.dtype, device=x.device, memory_format=layout)
