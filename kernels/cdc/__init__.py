"""Central-difference convolution (UMed, Eq. 3)."""

from medveil.kernels.cdc.module import CentralDifferenceConv2d, convert_to_cdc
from medveil.kernels.cdc.ops import cdc_conv2d, cdc_conv2d_stats

__all__ = ["CentralDifferenceConv2d", "cdc_conv2d", "cdc_conv2d_stats", "convert_to_cdc"]
