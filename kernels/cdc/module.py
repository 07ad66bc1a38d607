"""Central-difference convolution as a module, and the swap that puts it into an existing model."""

import math

import torch
from torch import Tensor, nn

from medveil.kernels.cdc.ops import cdc_conv2d


class CentralDifferenceConv2d(nn.Module):
    """Drop-in for a 3x3 ``nn.Conv2d`` (one group, zero padding) with two trainable kernels ``weight_v`` and
    ``weight_c``.

    ``forward`` takes [N, in_channels, H, W] and returns [N, out_channels, H', W'] like ``nn.Conv2d`` does. Both
    kernels and the bias start as ``nn.Conv2d`` starts its own, drawn from torch's global generator.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        shape = (out_channels, in_channels, 3, 3)
        self.weight_v = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.weight_c = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both kernels and the bias anew."""
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.weight_c, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(9 * self.in_channels)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return cdc_conv2d(x, self.weight_v, self.weight_c, self.bias, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, stride={self.stride}, padding={self.padding}"
        return f"{text}, dilation={self.dilation}, bias={self.bias is not None}"


def _swappable(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _from_conv(conv: nn.Conv2d) -> CentralDifferenceConv2d:
    swapped = CentralDifferenceConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        swapped.weight_v.copy_(conv.weight)
        if swapped.bias is not None and conv.bias is not None:
            swapped.bias.copy_(conv.bias)
    return swapped.train(conv.training)


def convert_to_cdc(module: nn.Module) -> nn.Module:
    """Swap every plain 3x3 ``nn.Conv2d`` (one group, zero padding) inside ``module`` for a central-difference one, in
    place.

    ``weight_v`` and the bias are the old convolution's; ``weight_c`` is drawn as ``nn.Conv2d`` draws a kernel, from
    torch's global generator (zero it to start from the old function). Returns ``module``, or the new layer if it was
    one itself. Other layers (1x1, grouped, reflecting) stay as they are. Build optimisers afterwards: the parameters
    are new.
    """
    if _swappable(module):
        assert isinstance(module, nn.Conv2d)
        return _from_conv(module)
    for name, child in module.named_children():
        setattr(module, name, convert_to_cdc(child))
    return module
