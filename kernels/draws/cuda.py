"""Launchers of the Triton kernels of ``medveil::philox_words``, ``medveil::flip_shift`` and its backward operator."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.draws.kernels import flip_shift_bwd_kernel, flip_shift_fwd_kernel, philox_kernel
from medveil.kernels.layout import empty_moved

BLOCK = 256
WARPS = {"num_warps": 4}


def philox_words(keys: Tensor, steps: Tensor, low: int, high: int, count: int) -> Tensor:
    """As the reference, to the bit."""
    keys, steps = keys.contiguous(), steps.contiguous()
    out = torch.empty(len(steps), len(keys), count, dtype=torch.int64, device=keys.device)
    blocks = -(-count // 4)
    total = len(steps) * len(keys) * blocks
    if total > 0:
        with torch.cuda.device_of(keys):
            philox_kernel[(triton.cdiv(total, BLOCK),)](
                keys, steps, out, len(keys), blocks, total, count, low, high, BLOCK=BLOCK, **WARPS
            )
    return out


def flip_shift(x: Tensor, words: Tensor, padding: int, flip: bool) -> Tensor:
    """As the reference, to the bit, in channels_last: the layout that the network behind it reads."""
    out, words = empty_moved(x, len(words)), words.contiguous()
    height, width = x.shape[2:]
    if out.numel() > 0:
        with torch.cuda.device_of(x):
            flip_shift_fwd_kernel[(len(words), triton.cdiv(height * width, BLOCK))](
                x,
                words,
                out,
                len(words) // len(x),
                height,
                width,
                *x.stride(),
                *out.stride(),
                C=x.shape[1],
                PADDING=padding,
                FLIP=flip,
                BLOCK=BLOCK,
                **WARPS,
            )
    return out


def flip_shift_backward(grad: Tensor, words: Tensor, samples: int, padding: int, flip: bool) -> Tensor:
    """As the reference; a sum over several draws goes from the first on."""
    out, words = grad.new_empty(samples, *grad.shape[1:]), words.contiguous()
    height, width = grad.shape[2:]
    if out.numel() > 0:
        with torch.cuda.device_of(grad):
            flip_shift_bwd_kernel[(samples, triton.cdiv(height * width, BLOCK))](
                grad,
                words,
                out,
                len(words) // samples,
                height,
                width,
                *grad.stride(),
                C=grad.shape[1],
                PADDING=padding,
                FLIP=flip,
                ACC=tl.float64 if grad.dtype == torch.float64 else tl.float32,
                BLOCK=BLOCK,
                **WARPS,
            )
    return out
