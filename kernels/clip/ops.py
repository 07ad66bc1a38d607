"""``medveil::lbp_adaptive_clip``: registration, gradients and the public function.

The hard and the straight-through clip need two bits per element for their backward pass: forward packs them, one byte
per pixel and four channels (bit 2c: the contour noise of channel c passes, bit 2c + 1: the texture noise). The tanh
clip recomputes its derivative from the inputs.
"""

from typing import Any

import torch
from torch import Tensor

from medveil.kernels.clip import cpu, reference
from medveil.kernels.clip.reference import Inputs
from medveil.kernels.layout import laid_out_like
from medveil.kernels.lbp import texture_map
from medveil.kernels.lbp.reference import METHODS

_INPUTS = (
    "Tensor x, Tensor contour_noise, Tensor texture_noise, Tensor mask, Tensor? contour, Tensor? roi, Tensor? texture"
    ", float eps, int band, str lbp"
)  # the fields of reference.Inputs
_N = len(Inputs._fields)
torch.library.define(
    "medveil::lbp_adaptive_clip",
    f"({_INPUTS}, str clip, bool save) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    "medveil::lbp_adaptive_clip_packed_backward",
    "(Tensor grad, Tensor packed) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    "medveil::lbp_adaptive_clip_tanh_backward",
    f"(Tensor grad, {_INPUTS}) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _maps(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The three maps [N, 1, H, W], those not given computed."""
    contour, roi, texture = inputs.contour, inputs.roi, inputs.texture
    if contour is None:
        contour = reference.contour_band(inputs.mask, inputs.band)
    if roi is None:
        roi = (1 - contour.to(inputs.x.dtype)) * (inputs.mask != 0)
    return contour, roi, texture_map(inputs.x, inputs.lbp) if texture is None else texture


def _packed(x: Tensor, wanted: bool) -> Tensor:
    """Room for the packed byte; empty [0] if it is not wanted."""
    n, c, h, w = x.shape
    return x.new_empty((n, (c + 3) // 4, h, w) if wanted else 0, dtype=torch.uint8)


@torch.library.impl("medveil::lbp_adaptive_clip", "CPU")
def _cpu(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs, (clip, save) = Inputs(*arguments[:_N]), arguments[_N:]
    maps, packed = _maps(inputs), _packed(inputs.x, save and clip != "tanh")
    if clip == "tanh":
        out = reference.adaptive_clip(*inputs[:3], *maps, inputs.eps, clip)
        return laid_out_like(out, inputs.x), packed
    out = torch.empty_like(inputs.x)
    cpu.adaptive_clip(*inputs[:3], maps, inputs.eps, clip, out, packed)
    return out, packed


@torch.library.impl("medveil::lbp_adaptive_clip", "CUDA")
def _cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    from medveil.kernels.clip import cuda  # needs Triton

    inputs, (clip, save) = Inputs(*arguments[:_N]), arguments[_N:]
    out, packed = cuda.lbp_adaptive_clip(inputs, clip, save)
    return laid_out_like(out, inputs.x), packed


@torch.library.register_fake("medveil::lbp_adaptive_clip")
def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs, (clip, save) = Inputs(*arguments[:_N]), arguments[_N:]
    return torch.empty_like(inputs.x), _packed(inputs.x, save and clip != "tanh")


@torch.library.impl("medveil::lbp_adaptive_clip_packed_backward", "CPU")
def _packed_backward_cpu(grad: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    grads = torch.empty_like(grad), torch.empty_like(grad)
    for channel in range(grad.shape[1]):
        for noise in range(2):
            bit = packed[:, channel // 4] & (1 << (2 * (channel % 4) + noise))
            torch.mul(grad[:, channel], bit != 0, out=grads[noise][:, channel])
    return grads


@torch.library.impl("medveil::lbp_adaptive_clip_packed_backward", "CUDA")
def _packed_backward_cuda(grad: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    from medveil.kernels.clip import cuda  # needs Triton

    grads = cuda.packed_backward(grad, packed)
    return laid_out_like(grads[0], grad), laid_out_like(grads[1], grad)


@torch.library.impl("medveil::lbp_adaptive_clip_tanh_backward", "CPU")
def _tanh_backward_cpu(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    inputs = Inputs(*arguments)
    grads = reference.adaptive_clip_backward(grad, *inputs[:3], *_maps(inputs), inputs.eps, "tanh")
    return laid_out_like(grads[0], grad), laid_out_like(grads[1], grad)


@torch.library.impl("medveil::lbp_adaptive_clip_tanh_backward", "CUDA")
def _tanh_backward_cuda(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    from medveil.kernels.clip import cuda  # needs Triton

    grads = cuda.tanh_backward(grad, Inputs(*arguments))
    return laid_out_like(grads[0], grad), laid_out_like(grads[1], grad)


@torch.library.register_fake("medveil::lbp_adaptive_clip_packed_backward")
@torch.library.register_fake("medveil::lbp_adaptive_clip_tanh_backward")
def _backward_fake(grad: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), torch.empty_like(grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, eps, band, lbp, clip, _save = inputs
    ctx.clip, ctx.options = clip, (eps, band, lbp)
    ctx.save_for_backward(*(tensors if clip == "tanh" else output[1:]))


def _backward(ctx: Any, grad: Tensor, _packed_grad: Any) -> tuple[Tensor | None, ...]:
    if ctx.clip == "tanh":
        grads = torch.ops.medveil.lbp_adaptive_clip_tanh_backward(grad, *ctx.saved_tensors, *ctx.options)
    else:
        grads = torch.ops.medveil.lbp_adaptive_clip_packed_backward(grad, *ctx.saved_tensors)
    return (None, *grads, *(None,) * 9)


torch.library.register_autograd("medveil::lbp_adaptive_clip", _backward, setup_context=_setup_context)


def lbp_adaptive_clip(
    x: Tensor,
    contour_noise: Tensor,
    texture_noise: Tensor,
    mask: Tensor,
    eps: float,
    *,
    contour: Tensor | None = None,
    roi: Tensor | None = None,
    texture: Tensor | None = None,
    band: int = 1,
    lbp: str = "default",
    clip: str = "hard",
) -> Tensor:
    """UMed's protected image ``clip(x + delta_c + delta_t, 0, 1)`` (Eqs. 4 to 6), differentiable once in both noises.

    ``x`` [N, C, H, W] floating in [0, 1]: data, not differentiated; ``contour_noise`` and ``texture_noise`` of the same
    shape (cast to the dtype of ``x``); ``mask`` [N, 1, H, W], nonzero = foreground; ``eps`` in [0, 1], e.g. 4/255.
    Maps [N, 1, H, W] (bool, uint8 or floating) that are not given are computed: ``contour`` = :func:`contour_band` of
    ``mask`` with radius ``band``; ``roi`` = (1 - contour) mask; ``texture`` = :func:`medveil.kernels.texture_map` of
    ``x`` by the method ``lbp`` (C = 1 or 3). The bounds are eps contour and eps texture roi.
    ``clip``: "hard", "tanh" (bound tanh(noise / eps)) or "straight-through" (hard, but the gradient passes wherever the
    bound is above 0, through the last clip as well). Raises ``ValueError`` for shapes, names or an ``eps`` that do
    not fit.
    """
    if clip not in reference.CLIPS:
        raise ValueError(f"clip must be one of {', '.join(reference.CLIPS)}, not {clip!r}")
    if lbp not in METHODS:
        raise ValueError(f"lbp must be one of {', '.join(METHODS)}, not {lbp!r}")
    if x.ndim != 4 or not x.shape == contour_noise.shape == texture_noise.shape or not x.is_floating_point():
        shapes = f"{list(x.shape)} ({x.dtype}), {list(contour_noise.shape)} and {list(texture_noise.shape)}"
        raise ValueError(f"x and both noises must be floating [N, C, H, W] of one shape, not {shapes}")
    for name, image in (("mask", mask), ("contour", contour), ("roi", roi), ("texture", texture)):
        if image is not None and image.shape != (x.shape[0], 1, *x.shape[2:]):
            raise ValueError(f"{name} must be [{x.shape[0]}, 1, {x.shape[2]}, {x.shape[3]}], not {list(image.shape)}")
    if texture is None and x.shape[1] not in (1, 3):
        raise ValueError(f"texture must be given for images of {x.shape[1]} channels: it is computed for 1 or 3")
    if not 0 < eps <= 1 or band < 0:
        raise ValueError(f"eps must be above 0 and at most 1, and band 0 or more, not eps={eps}, band={band}")
    if x.requires_grad:
        raise ValueError("x is data and gets no gradient here: detach it")
    contour_noise, texture_noise = contour_noise.to(x.dtype), texture_noise.to(x.dtype)
    save = torch.is_grad_enabled() and (contour_noise.requires_grad or texture_noise.requires_grad)
    out: Tensor = torch.ops.medveil.lbp_adaptive_clip(
        x, contour_noise, texture_noise, mask, contour, roi, texture, eps, band, lbp, clip, save
    )[0]
    return out
