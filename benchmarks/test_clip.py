"""``lbp_adaptive_clip``, fp32, 224 x 224: with all maps computed inside, and as UMed calls it, with contour and texture
given and, on CUDA, everything in channels_last.

Bytes per pixel of C channels: forward reads x and both noises (12 C) and the mask (1), writes the image (4 C) and the
packed byte (1); backward reads the gradient (4 C) and the packed byte (1), writes two gradients (8 C).
UMed's call reads two maps more, a byte and a float (5).
Operations per pixel: 8 C and LBP's 44 forward, 2 C backward.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.common import batch_for, copy_of
from medveil.kernels import contour_band, lbp_adaptive_clip
from medveil.kernels.clip import reference as clip_reference
from medveil.kernels.lbp import reference as lbp_reference
from medveil.kernels.lbp.reference import LARGEST_CODE

SIDE, EPS = 224, 4 / 255


def eager(x: Tensor, contour_noise: Tensor, texture_noise: Tensor, mask: Tensor) -> Tensor:
    """The plain form: fp64 interpolation for the codes, then the equations one by one."""
    grey = (x * 255).round().to(torch.uint8)
    if x.shape[1] == 3:
        red, green, blue = grey.int().unbind(1)
        grey = (red * 19595 + green * 38470 + blue * 7471 + 32768 >> 16).to(torch.uint8)[:, None]
    codes = lbp_reference.local_binary_pattern(grey[:, 0], "default")[:, None]
    contour = contour_band(mask, 1)
    maps = contour, (~contour) * mask, codes.float() / LARGEST_CODE["default"]
    bounds = clip_reference.bounds(*maps, EPS, x.dtype)
    delta = torch.minimum(torch.maximum(contour_noise, -bounds[0]), bounds[0])
    delta = delta + torch.minimum(torch.maximum(texture_noise, -bounds[1]), bounds[1])
    return (x + delta).clamp(0, 1)


@pytest.mark.parametrize("provider", ["medveil", "eager", "compile", "copy"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_clip(measure, device, large, channels, way, provider):
    if provider == "compile" and not measure.with_compile:
        pytest.skip("--with-compile")
    batch = batch_for((16 * channels + 2) * SIDE**2, large, 4)
    x = (torch.rand(batch, channels, SIDE, SIDE, device=device) * 255).round() / 255
    noises = [(torch.randn_like(x) * EPS).requires_grad_() for _ in range(2)]
    mask = torch.zeros(batch, 1, SIDE, SIDE, dtype=torch.uint8, device=device)
    mask[:, :, 40:150, 60:190] = 1
    grad = torch.randn_like(x)
    bytes_ = (16 * channels + 2 if way == "forward" else 12 * channels + 1) * batch * SIDE**2

    def of(function: Callable[..., Tensor]) -> Callable[[], object]:
        def forward() -> Tensor:
            return function(x, *noises, mask)

        if way == "forward":
            return forward
        out = forward()
        return lambda: torch.autograd.grad(out, noises, grad, retain_graph=True)

    def ours(x: Tensor, contour_noise: Tensor, texture_noise: Tensor, mask: Tensor) -> Tensor:
        return lbp_adaptive_clip(x, contour_noise, texture_noise, mask, EPS)

    group = f"clip {way} {batch}x{channels}x{SIDE}x{SIDE} {device.type}"
    if provider == "copy":
        measure(provider, copy_of(bytes_, device), group, bytes_=bytes_)
        return
    run = of(ours if provider == "medveil" else torch.compile(eager) if provider == "compile" else eager)
    flops = (8 * channels + 44 if way == "forward" else 2 * channels) * batch * SIDE**2
    measure(provider, run, group, bytes_=bytes_, flops=flops, expected=of(eager), tolerance=1e-6)


@pytest.mark.parametrize("provider", ["medveil", "eager", "compile", "copy"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_clip_as_umed_calls_it(measure, device, large, channels, way, provider):
    if provider == "compile" and not measure.with_compile:
        pytest.skip("--with-compile")
    batch = batch_for((16 * channels + 7) * SIDE**2, large, 4)
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    x, *noises, grad = (
        torch.rand(batch, channels, SIDE, SIDE, device=device).contiguous(memory_format=layout) for _ in range(4)
    )
    noises = [((noise - 0.5) * 4 * EPS).requires_grad_() for noise in noises]
    mask = torch.zeros(batch, 1, SIDE, SIDE, dtype=torch.uint8, device=device)
    mask[:, :, 40:150, 60:190] = 1
    contour, texture = contour_band(mask, 1), torch.rand(batch, 1, SIDE, SIDE, device=device)
    bytes_ = (16 * channels + 7 if way == "forward" else 12 * channels + 1) * batch * SIDE**2

    def ours() -> Tensor:
        return lbp_adaptive_clip(x, *noises, mask, EPS, contour=contour, texture=texture)

    def plain() -> Tensor:
        return clip_reference.adaptive_clip(x, *noises, contour, (~contour) * mask, texture, EPS, "hard")

    def of(function: Callable[[], Tensor]) -> Callable[[], object]:
        if way == "forward":
            return function
        out = function()
        return lambda: torch.autograd.grad(out, noises, grad, retain_graph=True)

    group = f"clip {way} as UMed calls it {batch}x{channels}x{SIDE}x{SIDE} {device.type}"
    if provider == "copy":
        measure(provider, copy_of(bytes_, device), group, bytes_=bytes_)
        return
    run = of(ours if provider == "medveil" else torch.compile(plain) if provider == "compile" else plain)
    flops = (8 if way == "forward" else 2) * channels * batch * SIDE**2
    measure(provider, run, group, bytes_=bytes_, flops=flops, expected=of(plain), tolerance=1e-6)
