"""Networks that surrogates, generators and exploiters share, trained from scratch."""

from medveil.networks.resnet import SMALL, ResNet18, stem_for
from medveil.networks.unet import UNet

__all__ = ["SMALL", "ResNet18", "UNet", "stem_for"]
