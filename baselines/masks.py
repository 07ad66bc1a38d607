"""For each image of a set the mask of another one: where noise lies that says nothing of its own label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medveil import keyed
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.runtime import State, batches
from medveil.store import rows_of

_CHUNK = 256


@dataclass(frozen=True)
class OtherMasks:
    """``packed``: the masks of all samples, a bit a pixel, uint8 [n, bytes]; ``keys`` int64 [n] of their ids.

    ``other`` int64 [n]: whose mask a sample gets, never its own and never an empty one.
    """

    packed: Tensor
    keys: Tensor
    other: Tensor

    @staticmethod
    def of(data: Dataset, seed: int) -> "OtherMasks":
        """The masks of ``data``. Raises UserError when fewer than two of them have any foreground."""
        packed = [_packed(data.read(some).targets) for some in batches(range(len(data)), _CHUNK)]
        masks = torch.cat(packed)
        full = masks.any(1)
        order = [i for i in keyed.permutation(len(data), seed, "other masks", 0) if full[i]]
        if len(order) < 2:
            raise UserError("mask another needs two images with foreground at least")
        # Round the circle of those that have a mask; the others get the first ones' in turn.
        other = torch.tensor([order[i % len(order)] for i in range(len(data))])
        other[order] = torch.tensor([*order[1:], order[0]])
        return OtherMasks(masks, keyed.keys_of(data.ids), other)

    def of_ids(self, ids: Sequence[str], like: Tensor) -> Tensor:
        """The others' masks of the samples ``ids``, in the shape, dtype and place of ``like`` [N, 1, H, W]."""
        rows = self.other[rows_of(self.keys, keyed.keys_of(ids))]
        bits = np.unpackbits(self.packed[rows].numpy(), axis=1, count=like[0].numel())
        return torch.from_numpy(bits).view(like.shape).to(like)

    def state_dict(self) -> State:
        return {"packed": self.packed, "keys": self.keys, "other": self.other}


def _packed(masks: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(masks.flatten(1).bool().cpu().numpy(), axis=1))
