"""Launchers of the Triton kernels of ``medveil::topk_mask`` and ``medveil::topk_masked_step``."""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.layout import laid_out_like
from medveil.kernels.topk.kernels import topk_chunk_kernel, topk_count_kernel, topk_row_kernel, topk_tie_kernel
from medveil.kernels.topk.reference import count

LONGEST_ROW = 1 << 14  # places that one program keeps in registers
BLOCK = 4096
GROUP_BYTES = 32 << 20  # gradients of long rows at a time: all passes but the first then read the L2 cache


@functools.cache
def _nan_flag(device: torch.device) -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=device)


def nan_seen(device: torch.device) -> bool:
    """Whether a kernel met a NaN on ``device`` since the last call; waits for the device."""
    flag = _nan_flag(torch.empty(0, device=device).device)  # "cuda" is the current one
    seen = bool(flag.item())
    flag.zero_()
    return seen


def _launch(
    grad: Tensor,
    noise: Tensor | None,
    x: Tensor | None,
    out: Tensor,
    fraction: float,
    step: float,
    radius: float,
    support: Tensor | None,
    by: str,
    rank: str,
) -> None:
    """Fill contiguous ``out`` (bool: the mask, else the next noise) from contiguous tensors [N, ...]."""
    if grad.numel() == 0:
        return
    rows = grad.shape[0]
    channels = grad.shape[1] if by == "pixel" else 1
    positions = grad[0].numel() // channels
    score, key = tl.float32, tl.int32
    if grad.dtype == torch.float64:
        score, key = tl.float64, tl.int64
    elif not grad.is_floating_point():
        score, key = tl.int64, tl.int64
    wanted = count(fraction, positions)
    bytes_ = out.view(torch.uint8) if out.dtype == torch.bool else out
    common = {"C": channels, "ABS": rank == "abs", "HAS_SUPPORT": support is not None, "SCORE": score, "KEY": key}
    applied = {"STEP": noise is not None, "ACC": tl.float64 if out.dtype == torch.float64 else tl.float32}
    masks = bytes_ if support is None else support.view(torch.uint8)
    tensors = [grad, bytes_ if noise is None else noise, bytes_ if x is None else x, masks, bytes_]
    wide = grad.numel() >= 2**31
    flag = _nan_flag(grad.device)
    with torch.cuda.device_of(grad):
        if positions <= LONGEST_ROW:
            block = triton.next_power_of_2(positions)
            topk_row_kernel[(rows,)](
                *tensors,
                flag,
                positions,
                wanted,
                step,
                radius,
                **common,
                **applied,
                BLOCK=block,
                WIDE=wide,
                num_warps=min(32, max(1, block // 256)),
                enable_fp_fusion=False,
            )
            return
        digits = 4 if key == tl.int32 else 8
        chunks = triton.cdiv(positions, BLOCK)
        group = max(1, GROUP_BYTES // (grad[0].numel() * grad.element_size()))
        for first in range(0, rows, group):
            grad_, noise_, x_, support_, out_ = (of[first : first + group] for of in tensors)
            grid = (len(grad_), chunks)
            counts = torch.zeros(len(grad_), digits, 256, dtype=torch.int32, device=grad.device)
            ties = torch.empty(len(grad_), chunks, dtype=torch.int32, device=grad.device)
            shape = {"DIGITS": digits, "BLOCK": BLOCK, "WIDE": wide, "num_warps": 8, "enable_fp_fusion": False}
            for number in range(digits):
                topk_count_kernel[grid](
                    grad_, support_, counts, flag, positions, wanted, **common, **shape, PASS=number
                )
            topk_tie_kernel[grid](grad_, support_, counts, ties, positions, wanted, **common, **shape)
            topk_chunk_kernel[grid](
                grad_,
                noise_,
                x_,
                support_,
                out_,
                counts,
                ties,
                positions,
                wanted,
                step,
                radius,
                **common,
                **applied,
                **shape,
                CHUNKS=triton.next_power_of_2(chunks),
            )


def topk_mask(grad: Tensor, fraction: float, by: str, rank: str) -> Tensor:
    """bool of the shape of ``grad``, contiguous; NaN is never selected and raises the flag of :func:`nan_seen`."""
    out = torch.empty(grad.shape, dtype=torch.bool, device=grad.device)
    _launch(grad.contiguous(), None, None, out, fraction, 0.0, 0.0, None, by, rank)
    return out


def topk_masked_step(
    noise: Tensor,
    grad: Tensor,
    x: Tensor,
    fraction: float,
    step: float,
    radius: float,
    support: Tensor | None,
    by: str,
    rank: str,
) -> Tensor:
    """The next noise, in the dtype and layout of ``noise``."""
    grad, x = grad.contiguous(), x.contiguous()
    out = torch.empty_like(noise, memory_format=torch.contiguous_format)
    support = None if support is None else support.contiguous()
    _launch(grad, noise.contiguous(), x, out, fraction, step, radius, support, by, rank)
    return laid_out_like(out, noise)
