"""UMed's generators: F_c, a U-Net whose encoder has central-difference convolutions, and F_t, a plain U-Net."""

import torch
from torch import Tensor, nn

from medveil.kernels import convert_to_cdc
from medveil.networks import UNet
from medveil.umed.config import UMedConfig

_START = 2.0
"""tanh(2) is 0.96: a bound of four grey levels is reached after rounding, and the gradient is not yet gone."""


class Generators(nn.Module):
    """Contour and texture noise before they are bounded: float [N, C, H, W] in [0, 1] -> two float [N, C, H, W].

    The networks' outputs are in units of ``eps``. An untrained U-Net's outputs are tens of times a bound of 4/255:
    taken as they are, every pixel would start beyond its bound, where a clip has no gradient. With a carrier they
    multiply a checkerboard, and start at +2: near the bound everywhere, with one sign. A perturbator that the
    configuration leaves out is absent and its noise is zero.
    """

    def __init__(self, config: UMedConfig, channels: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.carrier = config.carrier == "checkerboard"
        self.contour = self._net(config, channels) if config.contour != "none" else None
        if self.contour is not None and config.contour == "cdc-unet":
            convert_to_cdc(self.contour.encoder)
        self.texture = self._net(config, channels) if config.texture != "none" else None

    def _net(self, config: UMedConfig, channels: int) -> UNet:
        net = UNet(channels, channels, config.width, config.depth)
        if self.carrier and net.head.bias is not None:
            nn.init.constant_(net.head.bias, _START)
        return net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        contour = self.contour(x) if self.contour is not None else x.new_zeros(x.shape)
        texture = self.texture(x) if self.texture is not None else x.new_zeros(x.shape)
        unit = self.eps * checkerboard(x) if self.carrier else self.eps
        return unit * contour.float(), unit * texture.float()


def checkerboard(x: Tensor) -> Tensor:
    """+1 and -1 in turn along both axes, float32 [H, W]: the highest spatial frequency that an image can hold."""
    rows, columns = (torch.arange(length, device=x.device) for length in x.shape[-2:])
    return 1.0 - 2.0 * ((rows[:, None] + columns) % 2)
