"""Launchers of the Triton kernels of ``medveil::lbp_adaptive_clip`` and its backward operators."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.clip.kernels import clip_kernel, packed_bwd_kernel
from kernels.clip.reference import CLIPS, contour_band
from kernels.layout import dense, dense_like, pixel_stride
from kernels.lbp.cuda import columns_per_program
from kernels.lbp.reference import LARGEST_CODE, METHODS

ROWS = 16
BLOCK = 1024


def _as_bytes(mask: Tensor) -> Tensor:
    return mask.contiguous().view(torch.uint8) if mask.dtype == torch.bool else mask.contiguous()


def _launch(
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    mask: Tensor,
    contour: Tensor | None,
    roi: Tensor | None,
    texture: Tensor | None,
    grad: Tensor | None,
    eps: float,
    band: int,
    lbp: str,
    clip: str,
    save: bool,
) -> tuple[Tensor, Tensor]:
    n, c, height, width = x.shape
    x = dense(x)
    contour_noise, texture_noise = dense_like(contour_noise, x), dense_like(texture_noise, x)
    grad = None if grad is None else dense_like(grad, x)
    if contour is None and band > 1:  # the fused form looks one pixel around
        contour = contour_band(mask, band)
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
            contour_noise,
            texture_noise,
            _as_bytes(mask),
            *(out if image is None else image for image in maps),
            out if grad is None else grad,
            out,
            second,
            packed,
            height,
            width,
            *x.stride(),
            eps,
            LARGEST=LARGEST_CODE[lbp],
            C=c,
            METHOD=METHODS.index(lbp),
            CLIP=CLIPS.index(clip),
            BAND=0 if contour is not None else band,
            HAS_CONTOUR=contour is not None,
            HAS_ROI=roi is not None,
            HAS_TEXTURE=texture is not None,
            SAVE=save,
            GRAD=grad is not None,
            ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
            ROWS=ROWS,
            COLUMNS=columns,
            WIDE=x.numel() >= 2**31,
            num_warps=max(1, columns // 64),
            enable_fp_fusion=False,
        )
    return out, packed if grad is None else second


def lbp_adaptive_clip(
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    mask: Tensor,
    contour: Tensor | None,
    roi: Tensor | None,
    texture: Tensor | None,
    eps: float,
    band: int,
    lbp: str,
    clip: str,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """The protected image and the packed byte of the backward pass (empty unless ``save``, and for tanh)."""
    save = save and clip != "tanh"
    return _launch(x, contour_noise, texture_noise, mask, contour, roi, texture, None, eps, band, lbp, clip, save)


def tanh_backward(
    grad: Tensor,
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    mask: Tensor,
    contour: Tensor | None,
    roi: Tensor | None,
    texture: Tensor | None,
    eps: float,
    band: int,
    lbp: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of both noises under the tanh clip."""
    return _launch(x, contour_noise, texture_noise, mask, contour, roi, texture, grad, eps, band, lbp, "tanh", False)


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
            WIDE=grad.numel() >= 2**31,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return grads
