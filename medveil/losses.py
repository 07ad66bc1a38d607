"""Training losses, one value per sample, so that a share of a global batch can be weighed exactly."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from medveil.dataset import Task

_SMOOTH = 1.0


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of the foreground per image [N], smoothed by 1; both arguments float [N, 1, H, W]."""
    dims = (1, 2, 3)
    overlap = (probability * target).sum(dims)
    return 1 - (2 * overlap + _SMOOTH) / (probability.sum(dims) + target.sum(dims) + _SMOOTH)


def segmentation_loss(logits: Tensor, target: Tensor, cross_entropy: Literal["binary", "softmax"] = "binary") -> Tensor:
    """Cross-entropy plus Dice with equal weights, per image [N] (the L_seg of UMed).

    ``logits``: [N, 1, H, W] for "binary"; [N, 2, H, W] (background, foreground) for "softmax".
    ``target``: {0, 1} [N, 1, H, W].
    """
    logits = logits.float()
    target = target.to(logits.dtype)
    if cross_entropy == "binary":
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
        probability = logits.sigmoid()
    else:
        entropy = F.cross_entropy(logits, target[:, 0].long(), reduction="none").mean((1, 2))
        probability = logits.softmax(1)[:, 1:]
    return entropy + dice_loss(probability, target)


def classification_loss(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """Cross-entropy per sample [N]; for ``multilabel`` the mean binary cross-entropy over the labels.

    ``logits``: [N, classes or labels]; ``target``: int64 [N], or {0, 1} [N, labels].
    """
    logits = logits.float()
    if task == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").mean(1)
    return F.cross_entropy(logits, target, reduction="none")


def global_mean(per_sample: Tensor, global_count: int, world: int) -> Tensor:
    """This rank's part of the mean over a global batch, scaled so that the mean over ranks is the batch's."""
    return per_sample.sum() * (world / global_count)
