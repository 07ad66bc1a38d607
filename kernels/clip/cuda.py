"""Launchers of the Triton kernels of ``medveil::lbp_adaptive_clip`` and its backward operators."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.clip.kernels import clip_kernel, packed_bwd_kernel
from medveil.kernels.clip.reference import CLIPS, Inputs, contour_band
from medveil.kernels.layout import dense, dense_like, needs_64_bits, pixel_stride
from medveil.kernels.lbp.cuda import columns_per_program
from medveil.kernels.lbp.reference import LARGEST_CODE, METHODS

ROWS = 16
BLOCK = 1024


def _as_bytes(mask: Tensor) -> Tensor:
    return mask.contiguous().view(torch.uint8) if mask.dtype == torch.bool else mask.contiguous()


def _launch(inputs: Inputs, clip: str, save: bool, grad: Tensor | None) -> tuple[Tensor, Tensor]:
    """Forward: the image and the packed byte; with ``grad`` the gradients of both noises."""
    x, contour, roi, texture = dense(inputs.x), inputs.contour, inputs.roi, inputs.texture
    n, c, height, width = x.shape
    noises = [dense_like(noise, x) for noise in (inputs.contour_noise, inputs.texture_noise)]
    grad = None if grad is None else dense_like(grad, x)
    if contour is None and inputs.band > 1:  # the fused form looks one pixel around
        contour = contour_band(inputs.mask, inputs.band)
    maps = [None if image is None else _as_bytes(image) for image in (contour, roi, texture)]
    out = torch.empty_like(x)
    second = torch.empty_like(x) if grad is not None else out
    packed = torch.empty((n, (c + 3) // 4, height, width) if save else 0, dtype=torch.uint8, device=x.device)
    if x.numel() == 0:
        return out, packed if grad is None else second
    columns = columns_per_program(width)
    with torch.cuda.device_of(x):
        clip_kernel[(n, triton.cdiv(height, ROWS), triton.cdiv(width, columns))](
            x,
            *noises,
            _as_bytes(inputs.mask),
            *(out if image is None else image for image in maps),
            out if grad is None else grad,
            out,
            second,
            packed,
            height,
            width,
            *x.stride(),
            inputs.eps,
            LARGEST=LARGEST_CODE[inputs.lbp],
            C=c,
            METHOD=METHODS.index(inputs.lbp),
            CLIP=CLIPS.index(clip),
            BAND=0 if contour is not None else inputs.band,
            HAS_CONTOUR=contour is not None,
            HAS_ROI=roi is not None,
            HAS_TEXTURE=texture is not None,
            SAVE=save,
            GRAD=grad is not None,
            ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
            ROWS=ROWS,
            COLUMNS=columns,
            WIDE=needs_64_bits(x),
            num_warps=max(1, columns // 64),
            enable_fp_fusion=False,
        )
    return out, packed if grad is None else second


def lbp_adaptive_clip(inputs: Inputs, clip: str, save: bool) -> tuple[Tensor, Tensor]:
    """The protected image and the packed byte of the backward pass (empty unless ``save``, and for tanh)."""
    return _launch(inputs, clip, save and clip != "tanh", None)


def tanh_backward(grad: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The gradients of both noises under the tanh clip."""
    return _launch(inputs, "tanh", False, grad)


def packed_backward(grad: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both noises from the packed byte."""
    grad = dense(grad)
    grads = torch.empty_like(grad), torch.empty_like(grad)
    if grad.numel() == 0:
        return grads
    n, c, height, width = grad.shape
    with torch.cuda.device_of(grad):
        packed_bwd_kernel[(n, triton.cdiv(height * width, BLOCK))](
            grad,
            packed,
            *grads,
            height * width,
            grad.stride(0),
            grad.stride(1),
            pixel_stride(grad),
            C=c,
            BLOCK=BLOCK,
            WIDE=needs_64_bits(grad),
            num_warps=4,
            enable_fp_fusion=False,
        )
    return grads
