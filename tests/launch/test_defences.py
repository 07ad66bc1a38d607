"""Defences do to the files what they say, and nothing to the test data."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medveil import keyed
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.launch.exploiters import defences
from medveil.launch.exploiters.config import ExploiterConfig
from medveil.launch.exploiters.defences import Defence, defended, parse_defence
from medveil.launch.exploiters.training import ADVERSARIAL_STEPS, _Training
from medveil.quantise import to_unit
from medveil.runtime import SingleProcess


@pytest.fixture
def images() -> torch.Tensor:
    smooth = torch.linspace(30, 220, 24)[None, None, :, None].expand(5, 3, 24, 24)
    noise = torch.randint(-20, 21, (5, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    return (smooth + noise).round().to(torch.uint8)


def as_data(images: torch.Tensor) -> ArrayDataset:
    masks = (images[:, :1] > 120).to(torch.uint8)
    return ArrayDataset(images, masks, [str(i) for i in range(len(images))], "segmentation", 1)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("none", Defence()),
        ("blur", Defence(("blur",))),
        ("jpeg30+blur", Defence(("jpeg30", "blur"))),
        ("crop", Defence(("crop75",))),
        ("mean+adv", Defence(("mean",), 4)),
        ("adv8", Defence((), 8)),
    ],
)
def test_names(text: str, parsed: Defence) -> None:
    assert parse_defence(text) == parsed
    assert parse_defence(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["blurr", "", "jpeg", "jpeg0", "jpeg101", "blur3", "crop5", "adv0", "adv+adv", "a b"])
def test_a_wrong_name_is_told(text: str) -> None:
    with pytest.raises(UserError, match="--defence"):
        parse_defence(text)


def test_filters_equal_scipy(images: torch.Tensor) -> None:
    array = images.numpy().astype(np.float64)
    line = np.array([1, 2, 1]) / 4
    gaussian = ndimage.convolve(array, np.outer(line, line)[None, None], mode="mirror")
    assert np.abs(defences.blur(images).numpy() - gaussian).max() <= 0.5 + 1e-4
    box = ndimage.uniform_filter(array, (1, 1, 3, 3), mode="mirror")
    assert np.abs(defences.mean(images).numpy() - box).max() <= 0.5 + 1e-4
    middle = ndimage.median_filter(images.numpy(), (1, 1, 3, 3), mode="nearest")
    assert np.array_equal(defences.median(images).numpy(), middle)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_loses_more_at_lower_quality(images: torch.Tensor, channels: int) -> None:
    images = images[:, :channels]
    errors = [(defences.jpeg(images, q).float() - images.float()).abs().mean().item() for q in (95, 60, 30)]
    assert 0 < errors[0] < errors[1] < errors[2] < 20


def test_crop_magnifies_the_centre_with_its_mask() -> None:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[..., 4:12, 4:12] = 200
    data = defended(as_data(image), parse_defence("crop50"))
    cropped, masks, _ = data.read([0])
    assert cropped.shape == image.shape
    assert bool((cropped == 200).all())
    assert bool((masks == 1).all())
    masks = defences.crop(torch.randint(0, 2, (2, 1, 15, 15), dtype=torch.uint8), 75, nearest=True)
    assert set(masks.unique().tolist()) == {0, 1}


def test_filters_apply_in_order_to_what_is_read(images: torch.Tensor) -> None:
    data = as_data(images)
    read = defended(data, parse_defence("median+jpeg60")).read([3, 1])
    assert torch.equal(read.images, defences.jpeg(defences.median(images[[3, 1]]), 60))
    assert torch.equal(read.targets, data.targets[[3, 1]])
    assert read.ids == ["3", "1"]
    assert defended(data, Defence()) is data


def test_adversarial_images_stay_in_their_bound_and_raise_the_loss(images: torch.Tensor) -> None:
    data = as_data(images)
    config = ExploiterConfig(width=4, epochs=1, batch_size=5)
    training = _Training(data, data, config, SingleProcess("cpu"), parse_defence("adv"))
    clean, keys = to_unit(images), keyed.keys_of(data.ids)
    attacked = training._adversarial(0, clean, data.targets, keys)
    change = (attacked - clean).abs()
    assert change.max() <= 4 / 255 + 1e-6
    assert change.mean() > 1 / 255
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert ADVERSARIAL_STEPS == 7
    training.model.eval()
    before, after = (training._losses(training.model, x, data.targets) for x in (clean, attacked))
    assert bool((after > before).all())
    assert all(parameter.requires_grad for parameter in training.model.parameters())
