"""Networks that surrogates, generators and exploiters share, trained from scratch."""

from medveil.networks.resnet import ResNet18
from medveil.networks.unet import UNet

__all__ = ["ResNet18", "UNet"]
