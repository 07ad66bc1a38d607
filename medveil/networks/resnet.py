"""ResNet-18 (He et al., CVPR 2016) with a choice of stem and width; the residual block is torchvision's."""

from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

Stem = Literal["small", "large"]

SMALL = 64
"""Images whose shorter side is below this many pixels take the stem that keeps their resolution."""


def stem_for(size: tuple[int, int]) -> Stem:
    return "small" if min(size) < SMALL else "large"


class ResNet18(nn.Module):
    """float [N, in_channels, H, W] -> logits float [N, num_classes].

    ``stem`` "small" is a 3x3 convolution of stride 1 without pooling, for images of about 28 to 64 pixels; "large" is
    the original 7x7 of stride 2 with pooling. ``width`` is the number of channels of the first stage (64 in the
    paper).
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, stem: Stem = "small") -> None:
        super().__init__()
        if stem == "small":
            first: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False)]
            pool: list[nn.Module] = []
        else:
            first = [nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)]
            pool = [nn.MaxPool2d(3, stride=2, padding=1)]
        self.stem = nn.Sequential(*first, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *pool)
        stages: list[nn.Module] = []
        channels = width
        for level in range(4):
            out = width * 2**level
            stages += [_block(channels, out, stride=1 if level == 0 else 2), _block(out, out, stride=1)]
            channels = out
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features before the classifier, float [N, 8 * width]."""
        pooled: Tensor = self.pool(self.stages(self.stem(x))).flatten(1)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def _block(in_channels: int, out_channels: int, stride: int) -> BasicBlock:
    if stride == 1 and in_channels == out_channels:
        return BasicBlock(in_channels, out_channels)
    # A 1x1 convolution of stride s sees every s-th pixel; taken apart, because oneDNN's backward of the strided one in
    # channels_last crashes on odd batches (torch 2.15, more than one thread). Pooling over one pixel takes every s-th
    # without losing the memory format in the backward, as slices do: the ReLUs and sums before it would be slow.
    every_nth = nn.AvgPool2d(1, stride)
    shortcut = nn.Sequential(every_nth, conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels))
    return BasicBlock(in_channels, out_channels, stride, shortcut)
