"""ResNet-18 (He et al., CVPR 2016) with a choice of stem and width."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from medveil.kernels import conv_relu

Stem = Literal["small", "large"]

SMALL = 64
"""Images whose shorter side is below this many pixels take the stem that keeps their resolution."""


def stem_for(size: tuple[int, int]) -> Stem:
    return "small" if min(size) < SMALL else "large"


def last_stage(size: tuple[int, int]) -> int:
    """Pixels in the last stage of a :class:`ResNet18` with the stem for images of ``size``, height and width."""
    shrunk = 8 if stem_for(size) == "small" else 32
    return math.prod(-(-side // shrunk) for side in size)


class Residual(nn.Module):
    """relu(f(x) + x), where f is two 3x3 convolutions with batch-norm; float [N, C, H, W] -> float [N, O, H', W']."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            # A 1x1 convolution of stride s sees every s-th pixel; taken apart, because oneDNN's backward of the strided
            # one in channels_last crashes on odd batches (torch 2.15, more than one thread). Pooling over one pixel
            # takes every s-th without losing the memory format in the backward, as slices do: the ReLUs and sums before
            # it would be slow.
            every_nth = nn.AvgPool2d(1, stride)
            projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            shortcut = nn.Sequential(every_nth, projection, nn.BatchNorm2d(out_channels))
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = activated(self.conv1, self.bn1, x)
        return activated(self.conv2, self.bn2, inner, self.shortcut(x))


def activated(conv: nn.Module, norm: nn.Module, x: Tensor, other: Tensor | None = None) -> Tensor:
    """relu(norm(conv(x)) + other); in one where the batch-norm is folded into the convolution."""
    # Not on the CPU, which gains nothing: the parts are as fast there, and its results stay what they were.
    if isinstance(norm, nn.Identity) and type(conv) is nn.Conv2d and x.device.type != "cpu":
        return conv_relu(conv, x, other)
    inner: Tensor = norm(conv(x))
    if other is not None:
        inner += other
    return F.relu(inner, inplace=True)


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
            stages += [Residual(channels, out, stride=1 if level == 0 else 2), Residual(out, out, stride=1)]
            channels = out
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features before the classifier, float [N, 8 * width]."""
        first = self.stem[3:](activated(self.stem[0], self.stem[1], x))
        pooled: Tensor = self.pool(self.stages(first)).flatten(1)
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits
