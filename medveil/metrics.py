"""What a model reached on a data set, and how far a released image is from its original. Shares are in [0, 1]."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from medveil.dataset import Task
from medveil.errors import UserError

HEADLINE: dict[Task, str] = {"segmentation": "dsc", "classification": "accuracy", "multilabel": "accuracy"}
"""The metric by which the best epoch of a task is chosen."""


IN_PIXELS = frozenset({"hd95"})
"""Metrics that are no shares but lengths; of these the lower is the better."""


def shown(metric: str, value: float) -> float:
    """``value`` as people read it: percent, or pixels."""
    return value if metric in IN_PIXELS else 100 * value


def overlap_counts(predicted: Tensor, target: Tensor) -> Tensor:
    """Pixels per image, int64 [N, 3]: in both, in ``predicted``, in ``target`` (bool or {0, 1} [N, 1, H, W])."""
    predicted, target = predicted.bool(), target.bool()
    return torch.stack([(predicted & target).sum((1, 2, 3)), predicted.sum((1, 2, 3)), target.sum((1, 2, 3))], dim=1)


def segmentation_metrics(counts: Tensor) -> dict[str, float]:
    """DSC and Jaccard of a set from its :func:`overlap_counts` [N, 3].

    ``dsc``, ``jaccard``: per image, then averaged; an empty prediction of an empty mask is left out of the average.
    ``dsc_pooled``, ``jaccard_pooled``: over the pixels of the whole set; there J = D / (2 - D).
    Raises UserError when no pixel of the set is foreground, in the masks or in the predictions.
    """
    both, predicted, target = counts.cpu().to(torch.float64).unbind(1)
    counted = (predicted + target) > 0
    if not counted.any():
        raise UserError("every mask of the set is empty, so there is no Dice or Jaccard: give images with foreground")
    dice = (2 * both / (predicted + target))[counted]
    jaccard = (both / (predicted + target - both))[counted]
    pooled_both, pooled_sum = both.sum(), (predicted + target).sum()
    return {
        "dsc": float(dice.mean()),
        "dsc_pooled": float(2 * pooled_both / pooled_sum),
        "jaccard": float(jaccard.mean()),
        "jaccard_pooled": float(pooled_both / (pooled_sum - pooled_both)),
    }


def dice(counts: Tensor) -> Tensor:
    """The mean Dice of regions, from their :func:`overlap_counts` [N, 3]: those empty on both sides left out, NaN if
    all are.
    """
    both, predicted, target = counts.cpu().to(torch.float64).unbind(1)
    return (2 * both / (predicted + target)).nanmean()


def hd95(predicted: Tensor, target: Tensor) -> Tensor:
    """The 95th percentile of the distances between the borders of two regions, both ways: float64 [N], in pixels.

    ``predicted`` and ``target``: bool or {0, 1} [N, 1, H, W], or [N, D, H, W] of D > 1 slices of a volume; medpy's
    measure. One empty region is an image's diagonal away from the other [ours]; two are left out (NaN).
    """
    from medpy.metric.binary import hd95 as of_pair

    sides = target.shape[1 if target.shape[1] > 1 else 2 :]
    found = []
    for ours, theirs in zip(predicted.bool().cpu().numpy(), target.bool().cpu().numpy(), strict=True):
        if ours.any() and theirs.any():
            found.append(float(of_pair(ours.reshape(sides), theirs.reshape(sides))))
        else:
            found.append(math.hypot(*sides) if ours.any() or theirs.any() else math.nan)
    return torch.tensor(found, dtype=torch.float64)


def classification_metrics(scores: Tensor, targets: Tensor, task: Task) -> dict[str, float]:
    """Accuracy, balanced accuracy and AUC of probabilities ``scores`` float [N, classes or labels], N >= 2.

    ``targets``: int64 [N], or {0, 1} [N, labels] for ``multilabel``. Accuracy and AUC are medmnist's ``getACC`` and
    ``getAUC``: two classes count as binary (threshold 0.5 on the second), the AUC of more classes is the mean of one
    against the rest, and multi-label results are means over the labels. Balanced accuracy is the mean recall of the
    classes that occur (multi-label: of each label's two values, then over the labels). AUC is left out when a class, or
    one value of a label, does not occur in ``targets``: it is not defined then.
    """
    # medmnist brings pandas and scikit-learn with it: only evaluation pays for that.
    from medmnist.evaluator import getACC, getAUC

    y_score, y_true = scores.double().cpu().numpy(), targets.cpu().numpy()
    if task == "multilabel":
        name, decided = "multi-label, binary-class", (y_score > 0.5).astype(np.int64)
        recalls = [_balanced(y_true[:, label], decided[:, label]) for label in range(y_true.shape[1])]
        balanced = float(np.mean(recalls))
        complete = bool(((y_true == 0).any(0) & (y_true == 1).any(0)).all())
    else:
        name = "binary-class" if y_score.shape[1] == 2 else "multi-class"
        balanced = _balanced(y_true, y_score.argmax(1))
        complete = len(np.unique(y_true)) == y_score.shape[1]
    metrics = {"accuracy": float(getACC(y_true, y_score, name)), "balanced_accuracy": balanced}
    if complete:
        metrics["auc"] = float(getAUC(y_true, y_score, name))
    return metrics


def _balanced(truth: np.ndarray, decided: np.ndarray) -> float:
    return float(np.mean([(decided[truth == value] == value).mean() for value in np.unique(truth)]))


def psnr(original: Tensor, released: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of one uint8 image [C, H, W]; infinite when nothing changed (scikit-image)."""
    from skimage.metrics import peak_signal_noise_ratio

    if torch.equal(original, released):
        return math.inf
    return float(peak_signal_noise_ratio(original.numpy(), released.numpy(), data_range=255))


def roi_psnr(original: Tensor, released: Tensor, mask: Tensor) -> float:
    """PSNR in dB of one uint8 image [C, H, W] over the pixels of ``mask`` {0, 1} [1, H, W] alone.

    Infinite when nothing changed there, NaN for an empty mask.
    """
    inside = mask.bool().expand_as(original)
    if not inside.any():
        return math.nan
    error = float((original.double() - released.double())[inside].square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(original: Tensor, released: Tensor) -> float:
    """Structural similarity of one uint8 image [C, H, W], H and W >= 3: scikit-image, 7x7 window, mean over channels.

    Images with a side under 7 pixels take the largest odd window that fits.
    """
    from skimage.metrics import structural_similarity

    window = min(7, *original.shape[-2:])
    value = structural_similarity(
        original.numpy(), released.numpy(), data_range=255, channel_axis=0, win_size=window - 1 + window % 2
    )
    return float(value)


def mean_psnr(values: Iterable[float]) -> float:
    """The mean in dB over the images that changed (an unchanged one is infinitely close); infinite when none did."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.inf
