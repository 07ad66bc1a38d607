"""U-Net (Ronneberger et al., MICCAI 2015) with padded convolutions and batch-norm, for images of any size."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def deepest(size: tuple[int, int], depth: int) -> int:
    """Pixels at the bottleneck of a :class:`UNet` of ``depth`` for images of ``size``, height and width."""
    return math.prod(-(-side // 2**depth) for side in size)


class UNet(nn.Module):
    """float [N, in_channels, H, W] -> float [N, out_channels, H, W], no final activation.

    ``width`` is the number of channels of the first level (64 in the paper) and doubles at each of ``depth`` levels.
    ``encoder`` holds the contracting path with the bottleneck as its last block.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(_double_conv(i, o) for i, o in zip([in_channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1])
        self.decoder = nn.ModuleList(_double_conv(2 * w, w) for w in widths[:-1])
        self.head = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        multiple = 2 ** len(self.up)
        pad = (-width % multiple, -height % multiple)
        if any(pad):
            x = F.pad(x, (0, pad[0], 0, pad[1]))
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.decoder[level](self.merge(level, skips[level], self.up[level](x)))
        out: Tensor = self.head(x)
        return out[..., :height, :width]

    def merge(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """What the decoder's block of ``level`` sees: the encoder's output there and the level below, made larger."""
        return torch.cat([skip, below], dim=1)
