"""``medveil::topk_mask`` and ``medveil::topk_masked_step``: registration and the public functions."""

from typing import Any

import torch
from torch import Tensor

from medveil.kernels.registration import register
from medveil.kernels.topk import cpu

torch.library.define(
    "medveil::topk_mask",
    "(Tensor grad, float fraction, str by, str rank) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    "medveil::topk_masked_step",
    "(Tensor noise, Tensor grad, Tensor x, float fraction, float step, float radius, Tensor? support, str by, str rank)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


_CUDA = "medveil.kernels.topk.cuda"
register(
    "topk_mask",
    cpu.topk_mask,
    lambda grad, *_: torch.empty(grad.shape, dtype=torch.bool, device=grad.device),
    _CUDA,
)
register("topk_masked_step", cpu.topk_masked_step, lambda noise, *_: torch.empty_like(noise), _CUDA)


def _check(grad: Tensor, fraction: float, by: str, rank: str) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in 0..1, not {fraction}")
    if by not in ("element", "pixel"):
        raise ValueError(f"by must be 'element' or 'pixel', not {by!r}")
    if rank not in ("abs", "signed"):
        raise ValueError(f"rank must be 'abs' or 'signed', not {rank!r}")
    if grad.ndim < (3 if by == "pixel" else 1):
        raise ValueError(
            f"by {by}, the gradient must be [N, {'C, ' if by == 'pixel' else ''}...], not {list(grad.shape)}"
        )


def topk_mask(grad: Tensor, fraction: float, *, by: str = "element", rank: str = "abs") -> Tensor:
    """The top-k mask of each sample (SALM, Eq. 5): bool of the shape of ``grad``, not differentiable.

    ``grad`` [N, ...] of any real dtype; exactly floor(fraction n + 1e-9) of a sample's n elements are True, zeros
    included, ties going to the lowest flat index. ``rank``: by "abs"olute value or "signed". ``by="pixel"``: [N, C,
    ...], n counts the positions, which are ranked by the sum over their channels and taken with all of them.
    Raises ``ValueError`` for other arguments and, on the CPU, for NaN.
    """
    _check(grad, fraction, by, rank)
    mask: Tensor = torch.ops.medveil.topk_mask(grad.detach(), fraction, by, rank)
    return mask


class _TopkGradMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fraction: float, by: str, rank: str) -> Tensor:
        ctx.options = fraction, by, rank
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        return grad * torch.ops.medveil.topk_mask(grad, *ctx.options), None, None, None


def topk_grad_mask(x: Tensor, fraction: float, *, by: str = "element", rank: str = "abs") -> Tensor:
    """``x`` itself; backward keeps only each sample's top-k gradient (Eq. 5 as an autograd operator).

    Arguments and errors as :func:`topk_mask`.
    """
    _check(x, fraction, by, rank)
    out: Tensor = _TopkGradMask.apply(x, fraction, by, rank)
    return out


def topk_masked_step(
    noise: Tensor,
    grad: Tensor,
    x: Tensor,
    fraction: float,
    step: float,
    radius: float,
    *,
    support: Tensor | None = None,
    by: str = "element",
    rank: str = "abs",
) -> Tensor:
    """One masked sign step (SALM, Eq. 6): ``clip(noise - step sign(M grad), -radius, radius)`` with x + noise in [0,
    1].

    ``noise``, ``grad`` and ``x`` [N, ...] of one shape, floating, ``x`` in [0, 1], ``step`` and ``radius`` in its
    units (a negative ``step`` ascends); M = :func:`topk_mask` of ``grad``. With ``support`` (bool, same shape) only
    its elements are ranked and selected, the same number or as many as it has. Returns the new noise in the dtype of
    ``noise``; a zero that is not selected stays exactly zero. Not differentiable. Raises ``ValueError`` as
    :func:`topk_mask` does.
    """
    _check(grad, fraction, by, rank)
    if not noise.shape == grad.shape == x.shape:
        shapes = f"{list(noise.shape)}, {list(grad.shape)} and {list(x.shape)}"
        raise ValueError(f"noise, grad and x must have one shape, not {shapes}")
    if not (noise.dtype.is_floating_point and x.dtype.is_floating_point):
        raise ValueError(f"noise and x must be floating, not {noise.dtype} and {x.dtype}: divide grey levels by 255")
    if support is not None and (support.shape != grad.shape or support.dtype != torch.bool):
        raise ValueError(f"support must be bool {list(grad.shape)}, not {support.dtype} {list(support.shape)}")
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, not {radius}")
    out: Tensor = torch.ops.medveil.topk_masked_step(
        noise.detach(), grad.detach(), x.detach(), fraction, step, radius, support, by, rank
    )
    return out


def nan_seen(device: torch.device | str) -> bool:
    """Whether a selection on ``device`` met a NaN since this was last asked; waits for the device: ask once per epoch.

    On CUDA a NaN is never selected and only noted; on the CPU it is an error at once, so the answer is always False.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return False
    from medveil.kernels.topk import cuda  # needs Triton

    return cuda.nan_seen(device)
