"""Generated sets: the same for everyone, and not to be had by a threshold."""

import hashlib

import numpy as np
import pytest
import torch

from medveil.errors import UserError
from medveil.launch.data import open_data
from medveil.launch.data.phantom import CLASSES


@pytest.mark.parametrize("kind", ["seg", "cls"])
def test_an_image_depends_on_its_index_alone(kind: str) -> None:
    small, large = open_data(f"phantom:{kind}:8:32"), open_data(f"phantom:{kind}:12:32")
    assert large.data.ids[:8] == small.data.ids
    first, second = small.data.read(range(8)), large.data.read(range(8))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.targets, second.targets)
    assert small.fingerprint != large.fingerprint
    assert small.test is not None
    assert not set(small.test.ids) & set(large.data.ids)


def test_the_images_are_those_of_this_version() -> None:
    """If this fails because the images were changed on purpose, count ``phantom.VERSION`` up and note the new sums."""
    sums = {}
    for kind in ("seg", "cls"):
        batch = open_data(f"phantom:{kind}:6").data.read(range(6))
        # A coarse sum: another processor may round a pixel the other way.
        coarse = (batch.images.float().mean((1, 2, 3)) / 4).round().to(torch.uint8).numpy()
        sums[kind] = hashlib.sha256(coarse.tobytes() + batch.targets.numpy().tobytes()).hexdigest()[:12]
    assert sums == {"seg": "b235f6204909", "cls": "cbe412801407"}


def test_lesions_are_of_both_signs_and_thresholds_do_not_find_them() -> None:
    source = open_data("phantom:seg:100")
    images, masks, _ = source.data.read(range(100))
    x, y = images.float(), masks.bool()
    shares = y.float().mean((1, 2, 3))
    assert shares.min() > 0.01
    assert shares.max() < 0.4
    contrast = torch.stack([image[mask].mean() - image[~mask].median() for image, mask in zip(x, y, strict=True)])
    assert (contrast > 20).sum() > 20
    assert (contrast < -20).sum() > 20
    best = 0.0
    level = x.flatten(1).median(1).values[:, None, None, None]
    for guess in [lambda t: x > t, lambda t: x < t, lambda t: (x - level).abs() > t]:
        for threshold in range(0, 256, 6):
            found = guess(threshold)
            overlap = (found & y).sum((1, 2, 3))
            best = max(best, (2 * overlap / (found.sum((1, 2, 3)) + y.sum((1, 2, 3)))).mean().item())
    assert best < 0.6


def test_classes_are_even_and_not_told_by_mean_or_spread() -> None:
    source = open_data("phantom:cls:400")
    images, targets, _ = source.data.read(range(400))
    assert source.class_names == CLASSES
    counts = torch.bincount(targets, minlength=4)
    assert counts.min() > 70
    features = np.stack([images.float().mean((1, 2, 3)), images.float().std((1, 2, 3))], axis=1)
    centres = np.stack([features[:200][targets[:200] == k].mean(0) for k in range(4)])
    spread = features.std(0)
    nearest = (((features[200:, None] - centres) / spread) ** 2).sum(-1).argmin(1)
    assert (nearest == targets[200:].numpy()).mean() < 0.5


def test_sizes_come_from_the_name_or_the_option() -> None:
    assert open_data("phantom:seg:4", size=48).data.size == (48, 48)
    assert open_data("phantom:cls:4:32", size=32).data.size == (32, 32)
    assert len(open_data("phantom:seg", size=16).data) == 400
    for spec, size, said in [
        ("phantom:mri", None, "is not a generated set"),
        ("phantom:seg:many", None, "is not a generated set"),
        ("phantom:seg:2", None, "4 to 100000 images"),
        ("phantom:seg:8:4", None, "a side of 16 to 1024"),
        ("phantom:seg:8:32", 48, "has size 32 but --size is 48"),
        ("phantom:seg:8", 8, "size 8 is out of range"),
    ]:
        with pytest.raises(UserError, match=said):
            open_data(spec, size=size)
