"""Medveil's fused operators: PyTorch on the CPU, Triton on CUDA, one name on every device.

Each folder holds one operator: ``reference.py`` is its specification in eager PyTorch, ``ops.py`` registers it as
``medveil::...`` (CPU and CUDA implementations, fake tensors, gradients). Only torch is needed; Triton where there is
a GPU.
"""

from medveil.kernels.cdc import CentralDifferenceConv2d, cdc_conv2d, cdc_conv2d_stats, convert_to_cdc
from medveil.kernels.clip import contour_band, lbp_adaptive_clip
from medveil.kernels.conv_relu import conv_relu
from medveil.kernels.draws import flip_shift, philox_words
from medveil.kernels.lbp import local_binary_pattern, texture_map
from medveil.kernels.topk import NanGradient, nan_seen, topk_grad_mask, topk_mask, topk_masked_step

__all__ = [
    "CentralDifferenceConv2d",
    "NanGradient",
    "cdc_conv2d",
    "cdc_conv2d_stats",
    "contour_band",
    "conv_relu",
    "convert_to_cdc",
    "flip_shift",
    "lbp_adaptive_clip",
    "local_binary_pattern",
    "nan_seen",
    "philox_words",
    "texture_map",
    "topk_grad_mask",
    "topk_mask",
    "topk_masked_step",
]
