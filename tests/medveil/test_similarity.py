"""The similarity measures against their definitions and other libraries."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from medveil.similarity import MEASURES, mean_similarity, nmi, similarity


def _image(seed: int, channels: int = 3) -> torch.Tensor:
    """Squares of 4x4 pixels."""
    coarse = np.random.default_rng(seed).integers(40, 216, (channels, 7, 7), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(4, 1).repeat(4, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_images_are_alike_by_every_measure(channels: int) -> None:
    image = _image(0, channels)
    assert similarity(image, image) == {**dict.fromkeys(MEASURES, 1.0), "psnr": math.inf}
    flat = torch.full((channels, 28, 28), 7, dtype=torch.uint8)
    assert similarity(flat, flat)["nmi"] == 1


def test_nmi_is_scikit_learns() -> None:
    a = _image(1)
    b = (a + torch.randint(0, 5, a.shape, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    expected = normalized_mutual_info_score(a.flatten().numpy(), b.flatten().numpy())
    assert 0.2 < expected < 0.9
    assert nmi(a, b) == pytest.approx(expected, abs=1e-9)
    assert nmi(torch.full_like(a, 7), a) == pytest.approx(0, abs=1e-9)


def test_ahash_counts_the_blocks_on_the_same_side_of_the_mean() -> None:
    left = torch.zeros(1, 8, 8, dtype=torch.uint8)
    left[..., :4] = 200
    moved = left.clone()
    moved[..., 3] = 0
    assert similarity(left, moved)["ahash"] == 1 - 8 / 64
    # dHash: of the eight differences between neighbours in each row, two are at another place.
    assert similarity(left, left.flip(2))["dhash"] < 1


def test_more_noise_is_less_alike_and_means_are_taken() -> None:
    image = _image(2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 2, image.shape, generator=generator) * 2 - 1
    weak, strong = ((image + noise * levels).clamp(0, 255).to(torch.uint8) for levels in (2, 24))
    a, b = similarity(image, weak), similarity(image, strong)
    assert all(a[name] > b[name] for name in ("ssim", "psnr"))
    # The low frequencies that pHash keeps stay, and turn over in the negative.
    assert similarity(image, weak)["phash"] > 0.75
    assert similarity(image, 255 - image)["phash"] < 0.25
    means = mean_similarity([a, b, similarity(image, image)])
    assert means["ssim"] == pytest.approx((a["ssim"] + b["ssim"] + 1) / 3)
    assert means["psnr"] == pytest.approx((a["psnr"] + b["psnr"]) / 2)
    assert mean_similarity([]) == {}
