"""What a class is to the protectors to compare with: the label of an image, or the inside or outside of a mask."""

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil.baselines.config import Region
from medveil.dataset import Task
from medveil.errors import UserError
from medveil.kernels import contour_band


def region_of(region: Region, targets: Tensor, band: int) -> Tensor | None:
    """Where noise is allowed, bool [N, 1, H, W], for masks ``targets`` {0, 1} [N, 1, H, W]; None: everywhere.

    "contour" is the band of radius ``band`` around the mask's contour, "roi" the mask itself.
    """
    if region == "image":
        return None
    if region == "roi":
        return targets.bool()
    contour = contour_band(targets, band)
    return contour if region == "contour" else contour | targets.bool()


def check_region(region: Region, task: Task) -> None:
    """Raise UserError for a region that is drawn from masks where ``task`` has none."""
    if region != "image" and task != "segmentation":
        raise UserError(f"region {region} needs masks, and {task} data has none: take region image")


def default_eps(task: Task) -> float:
    """The bounds of the papers, on the [0, 1] scale: UMed's 4/255 for segmentation, SALM's 8/255 otherwise."""
    return 4 / 255 if task == "segmentation" else 8 / 255


def count_of(task: Task, num_classes: int) -> int:
    """How many classes noise can be kept for: 2 for segmentation (outside, inside). Raises UserError for multilabel."""
    if task == "multilabel":
        raise UserError("multi-label images have no single class each: take wise sample (em) or objective label (sep)")
    return 2 if task == "segmentation" else num_classes


def membership(targets: Tensor, task: Task, count: int) -> Tensor:
    """1 where a pixel belongs to a class, float32 [N, count, H, W] (segmentation) or [N, count, 1, 1]."""
    if task == "segmentation":
        inside = targets.float()
        return torch.cat([1 - inside, inside], dim=1)
    return F.one_hot(targets, count).float()[:, :, None, None]


def composed(noise: Tensor, members: Tensor) -> Tensor:
    """Noise per class [count, C, H, W] laid where ``members`` [N, count, H or 1, W or 1] says: [N, C, H, W]."""
    return torch.einsum("nkhw,kchw->nchw", members.expand(-1, -1, *noise.shape[-2:]), noise)


def class_names(targets: Tensor, task: Task) -> list[str]:
    """The class of each image of a classification set, by name; in a multi-label set a set of labels is a class."""
    if task == "multilabel":
        return ["".join(map(str, row)) for row in targets.tolist()]
    return [str(label) for label in targets.tolist()]


def wrong_targets(targets: Tensor, task: Task, num_classes: int, shift: int) -> Tensor:
    """What a model is made to see instead: the class ``shift`` further, the other labels, or the flipped mask.

    Shapes and dtypes as ``targets``; never the true target. Raises UserError for a shift that ends where it began.
    """
    if task != "classification":
        return 1 - targets
    if shift % num_classes == 0:
        raise UserError(f"shift {shift} of {num_classes} classes lands on the true class: choose another")
    return (targets + shift) % num_classes
