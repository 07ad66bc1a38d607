"""Whole volumes in place of their slices, for models of three dimensions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil.dataset import Batch, Dataset, View
from medveil.errors import UserError


@dataclass(frozen=True)
class Stacked(View):
    """The volumes ``names`` of the slices of ``data`` at ``members``, with their ``depth`` slices as channels.

    Images are [B, depth, H, W], masks {0, 1} of the same shape; a volume of fewer slices ends with empty ones. The
    class of a volume is that of its first slice.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    depth: int

    @property
    def ids(self) -> Sequence[str]:
        return self.names

    @property
    def channels(self) -> int:
        return self.depth

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Batch:
        parts = [self.data.read(self.members[i]) for i in indices]
        images = torch.stack([self._whole(part.images) for part in parts])
        if self.task == "segmentation":
            targets = torch.stack([self._whole(part.targets) for part in parts])
        else:
            targets = torch.stack([part.targets[0] for part in parts])
        return Batch(images, targets, [self.names[i] for i in indices])

    def _whole(self, slices: Tensor) -> Tensor:
        """[D, 1, H, W] as [depth, H, W]."""
        return F.pad(slices[:, 0], (0, 0, 0, 0, 0, self.depth - len(slices)))


def stacked(data: Dataset, volumes: Mapping[str, str], depth: int, name: str) -> Stacked:
    """The volumes of ``data``, whose slices ``volumes`` names by their ids, in the order of their first ones.

    Raises UserError for coloured slices, and for single images.
    """
    if data.channels != 1:
        raise UserError(f"{name} is coloured: models of three dimensions take grey volumes")
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(data.ids):
        if sample not in volumes:
            raise UserError(f"{name} has single images such as {sample}: models of three dimensions take volumes")
        members.setdefault(volumes[sample], []).append(index)
    return Stacked(data, tuple(members), tuple(map(tuple, members.values())), depth)
