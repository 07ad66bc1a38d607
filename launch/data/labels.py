"""Label maps: their regions as one foreground, or each as a target of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medveil.dataset import Batch, View
from medveil.launch.data.formats.windows import Values

MOST = 32
"""Label maps of more values are one foreground only."""


def numbered(labels: Values, values: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Each pixel's place among the ascending ``values``, counted from 1; 0 where it has none of them."""
    if not values:
        return (labels > 0).astype(np.uint8)
    place = np.searchsorted(values, labels).clip(max=len(values) - 1)
    return np.where(np.asarray(values)[place] == labels, place + 1, 0).astype(np.uint8)


@dataclass(frozen=True)
class Foreground(View):
    """``data``, whose targets are numbers of labels uint8 [B, 1, H, W], with all of these as one foreground."""

    def read(self, indices: Sequence[int]) -> Batch:
        images, targets, ids = self.data.read(indices)
        return Batch(images, (targets > 0).to(torch.uint8), ids)


@dataclass(frozen=True)
class PerLabel(View):
    """``data``, as of :class:`Foreground`, with the regions of the labels ``numbers`` (-1: not there) as targets.

    Its targets are uint8 {0, 1} [B, L, H, W].
    """

    numbers: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        return len(self.numbers)

    def read(self, indices: Sequence[int]) -> Batch:
        images, targets, ids = self.data.read(indices)
        regions = [targets == number if number > 0 else torch.zeros_like(targets) for number in self.numbers]
        return Batch(images, torch.cat(regions, dim=1).to(torch.uint8), ids)
