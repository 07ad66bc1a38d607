"""Networks that surrogates, generators and exploiters share, trained from scratch."""

from medveil.networks.resnet import SMALL, ResNet18, last_stage, stem_for
from medveil.networks.unet import UNet, deepest

__all__ = ["SMALL", "ResNet18", "UNet", "deepest", "last_stage", "stem_for"]
