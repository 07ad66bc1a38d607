"""A convolution, the sum with another image and a ReLU in one."""

from medveil.kernels.conv_relu.ops import conv_relu

__all__ = ["conv_relu"]
