"""Small sets, small settings and a fit that is cut: what the tests of several rivals share."""

import math
from typing import Any

import torch

from medveil.dataset import ArrayDataset
from medveil.quantise import quantise
from medveil.runtime import SingleProcess

_TINY = {"width": 4, "unet_width": 2, "batch_size": 4, "unet_batch_size": 4, "unet_learning_rate": 1e-2}
EM = {**_TINY, "variant": "alternating", "rounds": 2, "model_steps": 3, "noise_steps": 2, "relative_step": 0.5}
TAP = {**_TINY, "epochs": 2, "pgd_steps": 2, "restarts": 2, "relative_step": 0.5}
SEP = {**_TINY, "epochs": 2, "checkpoints": 2, "pgd_steps": 2, "step_size": 2 / 255}


def pictures(task: str = "segmentation", count: int = 11, size: int = 16, channels: int = 1) -> ArrayDataset:
    """Grainy images with brighter discs; classes and labels say where the disc is."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    place = torch.arange(count).view(-1, 1, 1, 1) % 3
    discs = ((rows - 7) ** 2 + (columns - 4 - 4 * place) ** 2 < 18).to(torch.uint8)
    grain = torch.randint(0, 60, (count, channels, size, size), generator=torch.Generator().manual_seed(0))
    images = (70 + 70 * discs + grain).to(torch.uint8)
    ids = [f"some/{i}" for i in range(count)]
    if task == "segmentation":
        return ArrayDataset(images, discs, ids, "segmentation", 1)
    labels = place.flatten()
    if task == "multilabel":
        return ArrayDataset(images, torch.stack([labels == 0, labels == 1], 1).to(torch.uint8), ids, "multilabel", 2)
    return ArrayDataset(images, labels, ids, "classification", 3)


def keeps_bound(name: str, change: torch.Tensor, levels: int) -> bool:
    """Whether ``change``, int [N, elements] in grey levels, stays within the bound of the rival ``name``."""
    if name in ("lsp", "ar"):
        # The bound is that of the norm: rounding adds no more than half a level to each pixel's share.
        return bool((change.float().norm(dim=1) / math.sqrt(change.shape[1])).max() <= levels + 0.5)
    return bool(change.abs().max() <= levels)


def saved(protector: Any, data: ArrayDataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The change of every image as saved, int32 grey levels, and where a change is allowed."""
    images, targets, ids = data.read(range(len(data)))
    released = quantise(protector.perturb(images, targets, ids), images, protector.budget().levels)
    support = protector.support(targets)
    everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
    return released.int() - images.int(), everywhere if support is None else support


class Last(SingleProcess):
    """Keeps the state of the last step."""

    def step(self, done: int, total: int, state: Any, **metrics: Any) -> None:
        self.state = state()
