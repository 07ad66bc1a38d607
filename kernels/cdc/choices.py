"""Which implementation runs each pass of ``medveil::cdc_conv2d`` on CUDA, by input channels and dtype.

MEASURED says on which device the table was measured. It is empty: **not measured yet**. Until it is, stems of 1 to 3
channels take our kernels, where a library convolution is known to leave most of the machine idle, and everything else
takes folded weights and the library's convolution. ``benchmarks/run_gpu.py`` prints the times that this table is to
be written from.
"""

from typing import Literal

import torch

Pass = Literal["forward", "input", "weight"]  # the output, and the gradients of x and of the folded kernel
Implementation = Literal["library", "direct", "gemm"]

MEASURED: dict[str, str] = {}  # device name -> commit and date of the measurement
STEM_CHANNELS = 3
TABLE: dict[tuple[Pass, str, torch.dtype], Implementation] = {
    ("forward", "stem", torch.float32): "direct",
    ("forward", "stem", torch.float16): "direct",
    ("forward", "stem", torch.bfloat16): "direct",
    ("input", "stem", torch.float32): "gemm",
    ("input", "stem", torch.float16): "gemm",
    ("input", "stem", torch.bfloat16): "gemm",
    ("weight", "stem", torch.float32): "gemm",
    ("weight", "stem", torch.float16): "gemm",
    ("weight", "stem", torch.bfloat16): "gemm",
    ("forward", "wide", torch.float32): "library",
    ("forward", "wide", torch.float16): "library",
    ("forward", "wide", torch.bfloat16): "library",
    ("input", "wide", torch.float32): "library",
    ("input", "wide", torch.float16): "library",
    ("input", "wide", torch.bfloat16): "library",
    ("weight", "wide", torch.float32): "library",
    ("weight", "wide", torch.float16): "library",
    ("weight", "wide", torch.bfloat16): "library",
}


def choose(what: Pass, channels: int, dtype: torch.dtype) -> Implementation:
    """The implementation of the pass ``what`` for an input of ``channels`` channels in ``dtype``; the library's for a
    dtype that is not in the table (fp64)."""
    return TABLE.get((what, "stem" if channels <= STEM_CHANNELS else "wide", dtype), "library")
