"""JPEG as a differentiable function: every rounding has the gradient of the identity."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-T T.81, Annex K, tables K.1 (luminance) and K.2 (chrominance).
_LUMA = [
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
]
_CHROMA = [
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *([99] * 32),
]


def rounded(x: Tensor) -> Tensor:
    """``x`` to the nearest whole number, with the gradient of ``x``."""
    return x + (torch.round(x) - x).detach()


def _quantised(x: Tensor) -> Tensor:
    """As :func:`rounded`, but halves away from zero as libjpeg has them, also where a float just misses them."""
    return x + (torch.sign(x) * torch.floor(x.abs() + 0.5 + 1e-4) - x).detach()


def jpeg(x: Tensor, quality: int, subsample: bool = True) -> Tensor:
    """float [N, C, H, W] in [0, 1], C 1 (grey) or 3 (RGB), as it is after JPEG of ``quality`` 1 to 100.

    ``subsample``: colour at half the size (4:2:0). libjpeg differs by a grey level here and there.
    """
    levels = rounded(x * 255)
    if x.shape[1] == 1:
        return _blocks(levels, _LUMA, quality).clamp(0, 255) / 255
    luma, blue, red = _to_ycc(levels)
    luma = _blocks(luma, _LUMA, quality)
    blue, red = (_chroma(plane, quality, subsample) for plane in (blue, red))
    return rounded(_to_rgb(luma, blue, red)).clamp(0, 255) / 255


def _chroma(plane: Tensor, quality: int, subsample: bool) -> Tensor:
    if not subsample:
        return _blocks(plane, _CHROMA, quality)
    height, width = plane.shape[-2:]
    even = F.pad(plane, (0, width % 2, 0, height % 2), mode="replicate")
    small = _blocks(rounded(F.avg_pool2d(even, 2)), _CHROMA, quality)
    return F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]


def _blocks(plane: Tensor, table: list[int], quality: int) -> Tensor:
    """``plane`` [N, 1, H, W] in grey levels, its 8 x 8 blocks transformed, quantised and transformed back."""
    batch, _, height, width = plane.shape
    padded = F.pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.view(batch, rows, 8, columns, 8).transpose(2, 3)
    basis, steps = _basis().to(plane), _steps(table, quality).to(plane)
    coefficients = _quantised(basis @ blocks @ basis.T / steps) * steps
    back = (basis.T @ coefficients @ basis).transpose(2, 3).reshape(padded.shape)
    return rounded(back + 128).clamp(0, 255)[..., :height, :width]


def _basis() -> Tensor:
    """The orthonormal DCT-II of length 8, one frequency a row."""
    frequency, place = torch.arange(8.0)[:, None], torch.arange(8.0)[None, :]
    basis = torch.cos(math.pi * (2 * place + 1) * frequency / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _steps(table: list[int], quality: int) -> Tensor:
    """The quantiser's steps [8, 8] as libjpeg scales them."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor([min(255, max(1, (entry * scale + 50) // 100)) for entry in table]).view(8, 8)


def _to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r, g, b = rgb.split(1, 1)
    luma = rounded(0.299 * r + 0.587 * g + 0.114 * b)
    blue = rounded(-0.168735892 * r - 0.331264108 * g + 0.5 * b + 128)
    red = rounded(0.5 * r - 0.418687589 * g - 0.081312411 * b + 128)
    return luma, blue, red


def _to_rgb(luma: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    blue, red = blue - 128, red - 128
    return torch.cat([luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue], 1)
