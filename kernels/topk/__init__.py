"""Exact top-k selection per sample and the masked sign step built on it (SALM, Eqs. 5 and 6)."""

from medveil.kernels.topk.ops import nan_seen, topk_grad_mask, topk_mask, topk_masked_step
from medveil.kernels.topk.reference import NanGradient
from medveil.kernels.topk.reference import count as topk_count

__all__ = ["NanGradient", "nan_seen", "topk_count", "topk_grad_mask", "topk_mask", "topk_masked_step"]
