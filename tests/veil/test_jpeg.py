"""The differentiable JPEG and resizers against Pillow's."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from medveil.veil.jpeg import jpeg
from medveil.veil.pipeline import RESIZERS


def picture(channels: int, height: int = 53, width: int = 70) -> torch.Tensor:
    """Smooth shapes and some grain, uint8 [C, H, W], of sides that are no multiples of 8 or 16."""
    chance = torch.Generator().manual_seed(channels)
    coarse = torch.rand(1, channels, 6, 7, generator=chance)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0]
    return (40 + 160 * smooth + 6 * torch.randn(channels, height, width, generator=chance)).clamp(0, 255).byte()


def through_pillow(image: torch.Tensor, quality: int, subsampling: int) -> torch.Tensor:
    pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    again = np.atleast_3d(np.asarray(Image.open(buffer)))
    return torch.from_numpy(again.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("quality", [10, 30, 60, 95])
@pytest.mark.parametrize(("channels", "subsample"), [(1, False), (3, False), (3, True)])
def test_jpeg_is_that_of_pillow(channels: int, subsample: bool, quality: int) -> None:
    image = picture(channels)
    ours = (jpeg(image[None] / 255, quality, subsample)[0] * 255).round()
    theirs = through_pillow(image, quality, 2 if subsample else 0).float()
    difference, change = (ours - theirs).abs(), (image.float() - theirs).abs()
    # libjpeg computes in whole numbers: where a coefficient lies between two steps it may take the other one.
    assert difference.mean() < (0.1 if quality <= 60 and channels == 1 else 1)
    assert difference.mean() < change.mean() / 4


def test_jpeg_hands_gradients_back() -> None:
    x = (picture(3)[None] / 255).requires_grad_(True)
    jpeg(x, 30).square().sum().backward()
    assert x.grad is not None
    assert (x.grad > 0).float().mean() > 0.9


def test_the_antialiased_resizer_is_that_of_pillow() -> None:
    image = picture(1)
    ours = (RESIZERS["pillow"](image[None] / 255, (31, 40))[0, 0] * 255).numpy()
    theirs = np.asarray(Image.fromarray(image[0].numpy()).resize((40, 31), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("name", RESIZERS)
def test_resizers_keep_a_plane_and_have_a_gradient(name: str) -> None:
    x = torch.full((1, 2, 24, 20), 0.5, requires_grad=True)
    small = RESIZERS[name](x, (12, 10))
    assert small.shape == (1, 2, 12, 10)
    torch.testing.assert_close(small, torch.full_like(small, 0.5))
    small.sum().backward()
    assert x.grad is not None
    assert x.grad.any()
