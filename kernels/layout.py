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


def pixel_stride(image: Tensor) -> int:
    """How far apart neighbouring pixels of a dense [N, C, H, W] lie; strides of sides of length 1 mean nothing."""
    if image.shape[3] > 1:
        return image.stride(3)
    return image.stride(2) if image.shape[2] > 1 else 1
