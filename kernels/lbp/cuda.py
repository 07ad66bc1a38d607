"""Launcher of the Triton kernel of ``medveil::local_binary_pattern``."""

import torch
import triton
from torch import Tensor

from medveil.kernels.layout import needs_64_bits
from medveil.kernels.lbp.kernels import lbp_fwd_kernel
from medveil.kernels.lbp.reference import METHODS

ROWS = 16


def columns_per_program(width: int) -> int:
    """A power of two from 32 to 256 that wastes little of a row of ``width``."""
    return min(256, max(32, triton.next_power_of_2(width)))


def local_binary_pattern(image: Tensor, method: str) -> Tensor:
    """Codes uint8 [N, H, W] of uint8 [N, H, W]."""
    image = image.contiguous()
    codes = torch.empty_like(image)
    if image.numel() == 0:
        return codes
    count, height, width = image.shape
    columns = columns_per_program(width)
    with torch.cuda.device_of(image):
        lbp_fwd_kernel[(count, triton.cdiv(height, ROWS), triton.cdiv(width, columns))](
            image,
            codes,
            height,
            width,
            METHOD=METHODS.index(method),
            ROWS=ROWS,
            COLUMNS=columns,
            WIDE=needs_64_bits(image),
            num_warps=max(1, columns // 64),
            enable_fp_fusion=False,
        )
    return codes
