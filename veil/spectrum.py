"""Noise without a band of its frequencies, so that no single band comes to hold all of it (as in FUSE, ICML 2026)."""

import torch
from torch import Tensor

_WIDEST = 0.3
"""Of a band, in cycles per pixel; the highest frequency along an axis is 0.5."""


def masked(noise: Tensor, low: Tensor, width: Tensor) -> Tensor:
    """``noise`` [N, C, H, W] without its radial frequencies from ``low`` to ``low + width`` [N], cycles per pixel."""
    height, columns = noise.shape[-2:]
    rows = torch.fft.fftfreq(height, device=noise.device)
    radius = torch.hypot(rows[:, None], torch.fft.rfftfreq(columns, device=noise.device))
    low, width = low.view(-1, 1, 1, 1), width.view(-1, 1, 1, 1)
    keep = (radius < low) | (radius >= low + width)
    return torch.fft.irfft2(torch.fft.rfft2(noise) * keep, s=(height, columns))


def bands(u: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Where each band begins and how wide it is, [N] each, by uniform draws ``u`` [N, 3]; all but a ``share`` empty."""
    width = torch.where(u[:, 0] < share, _WIDEST * u[:, 1], 0.0)
    return 0.5 * u[:, 2], width
