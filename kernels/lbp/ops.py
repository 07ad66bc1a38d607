"""``medveil::local_binary_pattern``: registration and the public function."""

import torch
from torch import Tensor

from medveil.kernels.lbp import cpu, reference

torch.library.define(
    "medveil::local_binary_pattern", "(Tensor image, str method) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,)
)


@torch.library.impl("medveil::local_binary_pattern", "CPU")
def _cpu(image: Tensor, method: str) -> Tensor:
    return cpu.local_binary_pattern(image, method)


@torch.library.impl("medveil::local_binary_pattern", "CUDA")
def _cuda(image: Tensor, method: str) -> Tensor:
    from medveil.kernels.lbp import cuda  # needs Triton

    return cuda.local_binary_pattern(image, method)


@torch.library.register_fake("medveil::local_binary_pattern")
def _fake(image: Tensor, method: str) -> Tensor:
    return torch.empty_like(image, memory_format=torch.contiguous_format)


def local_binary_pattern(image: Tensor, P: int = 8, R: int = 1, method: str = "default") -> Tensor:
    """scikit-image's ``local_binary_pattern`` codes of grey images, on any device.

    ``image`` uint8 [N, H, W] or [H, W] (grey levels); returns uint8 codes of the same shape. ``method``: "default"
    (codes 0..255), "ror" (the smallest rotation) or "uniform" (0..8, and 9 for patterns with more than two changes).
    Outside the image counts as black. Raises ``ValueError`` for another dtype, shape, method, or (P, R) other than
    (8, 1).
    """
    if image.dtype != torch.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"image must be uint8 [N, H, W] or [H, W], not {image.dtype} {list(image.shape)}")
    if (P, R) != (8, 1):
        raise ValueError(f"only 8 points at radius 1 are supported, not P={P}, R={R}")
    if method not in reference.METHODS:
        raise ValueError(f"method must be one of {', '.join(reference.METHODS)}, not {method!r}")
    batch = image if image.ndim == 3 else image.unsqueeze(0)
    codes: Tensor = torch.ops.medveil.local_binary_pattern(batch, method)
    return codes if image.ndim == 3 else codes.squeeze(0)
