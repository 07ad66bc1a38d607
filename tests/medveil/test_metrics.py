"""Metrics against values worked out by hand."""

import math

import pytest
import torch

from medveil.errors import UserError
from medveil.metrics import (
    classification_metrics,
    hd95,
    mean_psnr,
    overlap_counts,
    psnr,
    roi_psnr,
    segmentation_metrics,
    ssim,
)


def test_segmentation_metrics() -> None:
    target = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    target[0, 0, 0], target[1, 0, :2] = 1, 1
    predicted = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    predicted[1, 0, :, :2] = True
    found = segmentation_metrics(overlap_counts(predicted, target))
    # Image 0: missed (0); image 1: 4 of 8 and 8 (0.5, 1/3); image 2: empty against empty, left out.
    assert found == pytest.approx({"dsc": 0.25, "dsc_pooled": 8 / 20, "jaccard": 1 / 6, "jaccard_pooled": 4 / 16})
    with pytest.raises(UserError, match="empty"):
        segmentation_metrics(torch.zeros(3, 3, dtype=torch.int64))


def test_border_distance_is_in_pixels() -> None:
    """Two squares a shift apart; an empty prediction is the diagonal away; two empty regions do not count."""
    target = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    target[:2, :, 4:10, 4:10] = 1
    predicted = torch.zeros_like(target)
    predicted[0] = target[0].roll(3, dims=-1)
    found = hd95(predicted, target)
    assert found[:2].tolist() == pytest.approx([3.0, 16 * 2**0.5])
    assert bool(found[2].isnan())


def test_classification_metrics() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = classification_metrics(scores, torch.tensor([0, 0, 0, 1]), "classification")
    assert found == pytest.approx({"accuracy": 0.5, "balanced_accuracy": 1 / 3, "auc": 2 / 3})
    labels = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])
    found = classification_metrics(labels * 0.8 + 0.1, labels, "multilabel")
    assert found == {"accuracy": 1.0, "balanced_accuracy": 1.0, "auc": 1.0}
    assert "auc" not in classification_metrics(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]), "classification")


def test_image_metrics() -> None:
    original = torch.randint(20, 200, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert psnr(original, original + 4) == pytest.approx(36.09, abs=0.01)
    assert 0.9 < ssim(original, original + 4) < 1
    assert ssim(original, original) == 1
    assert ssim(original[:, :5], original[:, :5]) == 1
    mask = torch.zeros(1, 16, 16, dtype=torch.uint8)
    mask[..., :4] = 1
    assert roi_psnr(original, original + 4 * mask, mask) == pytest.approx(36.09, abs=0.01)
    assert roi_psnr(original, original + 4 * (1 - mask), mask) == math.inf
    assert mean_psnr([psnr(original, original), 40.0]) == 40.0
