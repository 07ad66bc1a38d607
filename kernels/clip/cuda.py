"""Launchers of the Triton kernels of ``medveil::lbp_adaptive_clip`` and its backward operators."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from medveil.kernels.clip.flat import clip_flat_kernel, packed_bwd_kernel
from medveil.kernels.clip.reference import CLIPS, Inputs, contour_band
from medveil.kernels.clip.walk import clip_walk_kernel
from medveil.kernels.layout import dense, dense_like, needs_64_bits
from medveil.kernels.lbp.cuda import pixels_per_lane
from medveil.kernels.lbp.reference import LARGEST_CODE, METHODS

# At most so many registers that twelve warps fit a multiprocessor; ten for tanh, which needs more.
WALK = {"ROWS": 16, "LANES": 32, "num_warps": 1, "maxnreg": 168, "enable_fp_fusion": False}
WALK_TANH = WALK | {"maxnreg": 255}
FLAT = {"LANES": 128, "num_warps": 4, "enable_fp_fusion": False}


def _as_bytes(mask: Tensor) -> Tensor:
    return mask.contiguous().view(torch.uint8) if mask.dtype == torch.bool else mask.contiguous()


def _layout(x: Tensor) -> dict[str, Any]:
    """How a dense image lies in memory, and in what it is calculated."""
    acc = tl.float64 if x.dtype == torch.float64 else tl.float32
    return {"C": x.shape[1], "LAST": not x.is_contiguous(), "ACC": acc, "WIDE": needs_64_bits(x)}


def _flat(x: Tensor) -> tuple[int, dict[str, Any]]:
    """Of a dense image the programs that take it in flat blocks of pixels, and what these need to know."""
    n, c, height, width = x.shape
    images, pixels = n, height * width
    if c <= 4 and (c == 1 or not x.is_contiguous()):  # all images are one run of pixels
        images, pixels = 1, n * height * width
    px = next(px for px in (4, 2, 1) if pixels % px == 0)
    blocks = triton.cdiv(pixels, FLAT["LANES"] * px)
    return images * blocks, {"pixels": pixels, "blocks": blocks, "PX": px} | _layout(x) | FLAT


def _launch(inputs: Inputs, clip: str, save: bool, grad: Tensor | None) -> tuple[Tensor, Tensor]:
    """Forward: the image and the packed byte; with ``grad`` the gradients of both noises."""
    x, contour, texture = dense(inputs.x), inputs.contour, inputs.texture
    n, c, height, width = x.shape
    noises = [dense_like(noise, x) for noise in (inputs.contour_noise, inputs.texture_noise)]
    grad = None if grad is None else dense_like(grad, x)
    if contour is None and (inputs.band != 1 or texture is not None):  # only one pixel around is looked at on the way
        contour = contour_band(inputs.mask, inputs.band)
    out = torch.empty_like(x)
    second = torch.empty_like(x) if grad is not None else out
    packed = torch.empty((n, (c + 3) // 4, height, width) if save else 0, dtype=torch.uint8, device=x.device)
    if x.numel() == 0:
        return out, packed if grad is None else second
    contour, roi, texture = (None if image is None else _as_bytes(image) for image in (contour, inputs.roi, texture))
    unused, maps = out, (contour, roi)
    results = unused if grad is None else grad, out, second, packed
    kinds = {"CLIP": CLIPS.index(clip), "HAS_ROI": roi is not None, "SAVE": save, "GRAD": grad is not None}
    given = [x, *noises, _as_bytes(inputs.mask), *(unused if image is None else image for image in maps)]
    with torch.cuda.device_of(x):
        if texture is not None:
            programs, shape = _flat(x)
            clip_flat_kernel[(programs,)](*given, texture, *results, eps=inputs.eps, **kinds, **shape)
        else:
            px = pixels_per_lane(width)
            down, across = triton.cdiv(height, WALK["ROWS"]), triton.cdiv(width, WALK["LANES"] * px)
            clip_walk_kernel[(n * down * across,)](
                *given,
                *results,
                height,
                width,
                down,
                across,
                inputs.eps,
                LARGEST=LARGEST_CODE[inputs.lbp],
                METHOD=METHODS.index(inputs.lbp),
                HAS_CONTOUR=contour is not None,
                PX=px,
                EDGES=across > 1,
                **kinds,
                **_layout(x),
                **(WALK_TANH if clip == "tanh" else WALK),
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
    if grad.numel() > 0:
        programs, shape = _flat(grad)
        shape.pop("ACC")
        with torch.cuda.device_of(grad):
            packed_bwd_kernel[(programs,)](grad, packed, *grads, **shape)
    return grads
