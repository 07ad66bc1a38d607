"""Images as a normalisation gives them to a network: levels that are not rounded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medveil.dataset import Batch, View


@dataclass(frozen=True)
class Graded(View):
    """``data`` with ``levels`` as its images: float32 [C, H, W] each, on the scale of grey levels, beyond them too."""

    levels: tuple[Tensor, ...] = field(repr=False)

    def read(self, indices: Sequence[int]) -> Batch:
        _, targets, ids = self.data.read(indices)
        return Batch(torch.stack([self.levels[i] for i in indices]), targets, ids)
