"""Memory layouts that an operator, its fake implementation and its kernels must agree on."""

import torch
from torch import Tensor


def laid_out_like(result: Tensor, like: Tensor) -> Tensor:
    """``result`` with the strides that ``torch.empty_like(like)`` has, which is what the fake implementations
    promise."""
    out = torch.empty_like(like)
    return result if out.stride() == result.stride() else out.copy_(result)


def dense(image: Tensor) -> Tensor:
    """[N, C, H, W] as it is if its pixels lie evenly spaced (contiguous or channels_last), else a contiguous copy."""
    if image.is_contiguous():
        return image
    if image.is_contiguous(memory_format=torch.channels_last):
        return image
    return image.contiguous()


def dense_like(other: Tensor, image: Tensor) -> Tensor:
    """``other`` with the strides of ``image``, which must be dense; copied only where they differ."""
    return other if other.stride() == image.stride() else torch.empty_like(image, dtype=other.dtype).copy_(other)


def prefers_channels_last(image: Tensor) -> bool:
    """Whether a convolution takes 4-D ``image`` for channels_last: torch's rule, which goes by the strides where the
    sides leave it open (one channel, one pixel)."""
    least = 0
    for axis in (1, 3, 2, 0):
        stride, size = image.stride(axis), image.shape[axis]
        if size == 0 or stride < least or (axis == 1 and stride == 0) or (axis == 0 and least == image.stride(1)):
            return False
        least = stride * max(1, size)
    return True


def needs_64_bits(*tensors: Tensor) -> bool:
    """Whether an element of one of them lies 2^31 elements or more behind its first, beyond 32-bit offsets."""
    return any(
        sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) >= 2**31
        for t in tensors
        if t.numel() > 0
    )


def empty_moved(x: Tensor, count: int) -> Tensor:
    """Room for ``count`` moved images of ``x`` [N, C, H, W]: in channels_last but on the CPU, whose results must stay
    what they are, and contiguous there."""
    layout = torch.contiguous_format if x.device.type == "cpu" else torch.channels_last
    return torch.empty((count, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=layout)
