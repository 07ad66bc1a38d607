"""UMed's generators: F_c, a U-Net whose encoder has central-difference convolutions, and F_t, a plain U-Net."""

from torch import Tensor, nn

from medveil.kernels import convert_to_cdc
from medveil.networks import UNet
from medveil.umed.config import UMedConfig


class Generators(nn.Module):
    """Contour and texture noise before they are bounded: float [N, C, H, W] in [0, 1] -> two float [N, C, H, W].

    The networks' outputs are in units of ``eps``, unless ``output`` is "raw". An untrained U-Net's outputs are tens of
    times a bound of 4/255: taken as they are, nearly every pixel starts beyond its bound, where a clip has no gradient.
    A perturbator that the configuration leaves out is absent and its noise is zero.
    """

    def __init__(self, config: UMedConfig, channels: int) -> None:
        super().__init__()
        self.unit = config.eps if config.output == "eps" else 1.0
        self.contour = _net(config, channels) if config.contour != "none" else None
        if self.contour is not None and config.contour == "cdc-unet":
            convert_to_cdc(self.contour.encoder)
        self.texture = _net(config, channels) if config.texture != "none" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        contour = self.contour(x) if self.contour is not None else x.new_zeros(x.shape)
        texture = self.texture(x) if self.texture is not None else x.new_zeros(x.shape)
        return self.unit * contour.float(), self.unit * texture.float()


def _net(config: UMedConfig, channels: int) -> UNet:
    return UNet(channels, channels, config.width, config.depth)
