"""Launchers of the Triton kernels of ``medveil::topk_mask`` and ``medveil::topk_masked_step``."""

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.layout import laid_out_like
from medveil.kernels.topk.long import topk_bracket_kernel, topk_gather_kernel
from medveil.kernels.topk.reference import count
from medveil.kernels.topk.rows import topk_row_kernel
from medveil.kernels.topk.settle import topk_settle_kernel

LANE = 4  # elements of a thread in a block: 16 bytes of fp32
PER_THREAD = 32  # 32-bit keys that a thread holds
REGISTERS = 1 << 16  # of a multiprocessor
LONGEST_ROW = 1 << 14  # places that one program keeps in registers
LONG = {"BLOCK": 4096, "num_warps": 8, "enable_fp_fusion": False}
# By the places of a row, how many of them are sampled, and how many candidates of it are collected. The more places,
# the more lie in the bracket of a sample; where there is no room for them the whole row is searched, which is slow.
SAMPLES = {1 << 18: (1 << 14, 1 << 13), 1 << 31: (1 << 15, 1 << 15)}
PROGRAMS = 1024  # of long rows' last launch, at least: each of them finds its row's threshold for itself
BLOCKS = 8  # that one of them writes, at most


@functools.cache
def nan_flag(device: torch.device) -> Tensor:
    """[1], not 0 where a kernel met a NaN."""
    return torch.zeros(1, dtype=torch.int32, device=device)


def nan_seen(device: torch.device) -> bool:
    """Whether a kernel met a NaN on ``device`` since the last call; waits for the device."""
    flag = nan_flag(torch.empty(0, device=device).device)  # "cuda" is the current one
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
    ranked = {
        "C": channels,
        "ABS": rank == "abs",
        "HAS_SUPPORT": support is not None,
        "SCORE": score,
        "KEY": key,
        "OUTSIDE": -(2**63) if key == tl.int64 else -1 if rank == "abs" else -(2**31),
        "WIDE": grad.numel() >= 2**31,
    }
    applied = {"STEP": noise is not None, "ACC": tl.float64 if out.dtype == torch.float64 else tl.float32}
    masks = bytes_ if support is None else support.view(torch.uint8)
    tensors = [grad, bytes_ if noise is None else noise, bytes_ if x is None else x, masks, bytes_]
    flag = nan_flag(grad.device)
    size = 2 if key == tl.int64 else 1  # of a key, in registers
    with torch.cuda.device_of(grad):
        if positions <= LONGEST_ROW // size:
            warps = _warps(positions, PER_THREAD // size)
            tile = 32 * LANE * warps
            topk_row_kernel[(rows,)](
                *tensors,
                flag,
                positions,
                wanted,
                step,
                radius,
                **ranked,
                **applied,
                TILES=triton.cdiv(positions, tile),
                TILE=tile,
                num_warps=warps,
                # All registers there are, for large programs: the compiler would spill to make room for a second one.
                maxnreg=REGISTERS // (32 * warps) if warps >= 16 else None,
                enable_fp_fusion=False,
            )
            return
        bracket = torch.empty(rows, 2, dtype=torch.int64 if key == tl.int64 else torch.int32, device=grad.device)
        counters = torch.empty(rows, 4, dtype=torch.int32, device=grad.device)
        sample, room = next(sizes for most, sizes in SAMPLES.items() if positions <= most)
        candidates = torch.empty(rows, room, dtype=bracket.dtype, device=grad.device)
        places = torch.empty(rows, room, dtype=torch.int32, device=grad.device)
        blocks = triton.cdiv(positions, LONG["BLOCK"])
        each = max(1, min(BLOCKS, blocks * rows // PROGRAMS))
        topk_bracket_kernel[(rows,)](
            grad, masks, bracket, counters, positions, wanted, **ranked, **_over(sample), SAMPLE=sample
        )
        topk_gather_kernel[(rows, blocks)](
            grad, masks, bracket, counters, candidates, places, flag, positions, **ranked, **LONG, ROOM=room
        )
        topk_settle_kernel[(rows, triton.cdiv(blocks, each))](
            *tensors,
            bracket,
            counters,
            candidates,
            places,
            positions,
            each,
            wanted,
            step,
            radius,
            **ranked,
            **applied,
            BLOCK=LONG["BLOCK"],
            ROOM=room,
            **_over(room),
        )


def _warps(positions: int, per_thread: int) -> int:
    """Warps of which each thread holds at most ``per_thread`` places of a row: one up to 1024 places, where no round of
    the search needs a barrier."""
    return min(16, triton.next_power_of_2(triton.cdiv(positions, 32 * per_thread)))


def _over(keys: int) -> dict[str, Any]:
    """Options of a program that holds so many keys."""
    return {"num_warps": min(32, max(1, keys // (32 * PER_THREAD))), "enable_fp_fusion": False}


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
