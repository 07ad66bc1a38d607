"""Which implementation runs the forward pass of ``medveil::cdc_conv2d`` on CUDA, by input channels and dtype.

MEASURED says on which device the table was measured. It is empty: **not measured yet**. Until it is, stems of 1 to 3
channels take the direct kernel, where a library convolution is known to leave most of the machine idle, and
everything else takes folded weights and the library's convolution; the implicit matrix product is never chosen.
``benchmarks/run_gpu.py`` prints the times that this table is to be written from.
"""

from typing import Literal

import torch

Implementation = Literal["library", "direct", "gemm"]

MEASURED: dict[str, str] = {}  # device name -> commit and date of the measurement
STEM_CHANNELS = 3
TABLE: dict[tuple[str, torch.dtype], Implementation] = {
    ("stem", torch.float32): "direct",
    ("stem", torch.float16): "direct",
    ("stem", torch.bfloat16): "direct",
    ("stem", torch.float64): "library",
    ("wide", torch.float32): "library",
    ("wide", torch.float16): "library",
    ("wide", torch.bfloat16): "library",
    ("wide", torch.float64): "library",
}


def choose(channels: int, dtype: torch.dtype) -> Implementation:
    """The implementation for an input of ``channels`` channels in ``dtype``."""
    return TABLE["stem" if channels <= STEM_CHANNELS else "wide", dtype]
