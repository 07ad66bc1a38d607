"""Launcher of the Triton kernel of ``medveil::local_binary_pattern``."""

import torch
import triton
from torch import Tensor

from medveil.kernels.layout import needs_64_bits
from medveil.kernels.lbp.kernels import lbp_fwd_kernel
from medveil.kernels.lbp.reference import METHODS

ROWS, LANES = 16, 32


def pixels_per_lane(width: int) -> int:
    """How many neighbours a lane takes: as many as one access can move, where whole ones make a row and a warp wastes
    little of it."""
    return next(px for px in (4, 2, 1) if width % px == 0 and (px == 1 or width > LANES * px // 2))


def local_binary_pattern(image: Tensor, method: str) -> Tensor:
    """Codes uint8 [N, H, W] of uint8 [N, H, W]."""
    image = image.contiguous()
    codes = torch.empty_like(image)
    if image.numel() == 0:
        return codes
    count, height, width = image.shape
    px = pixels_per_lane(width)
    down, across = triton.cdiv(height, ROWS), triton.cdiv(width, LANES * px)
    with torch.cuda.device_of(image):
        lbp_fwd_kernel[(count * down * across,)](
            image,
            codes,
            height,
            width,
            down,
            across,
            METHOD=METHODS.index(method),
            ROWS=ROWS,
            LANES=LANES,
            PX=px,
            AHEAD=4,
            WIDE=needs_64_bits(image),
            num_warps=1,
            enable_fp_fusion=False,
        )
    return codes
