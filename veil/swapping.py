"""The swap: one image's noise shown on another image, so that nothing but the noise tells the mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medveil import keyed
from medveil.dataset import Dataset
from medveil.quantise import to_unit
from medveil.veil.jpeg import rounded


def partners(batch: Sequence[int]) -> list[int]:
    """For each sample of a global batch another one of it: the next, and for the last the first."""
    return [*batch[1:], *batch[:1]]


def hosts(x: Tensor, others: Sequence[int], swapped: Tensor, data: Dataset) -> Tensor:
    """Images that noise is shown on, float [N, C, H, W] in [0, 1]: ``x``, and where ``swapped`` [N] the partner's.

    ``others``: the indices in ``data`` of the partners of ``x``.
    """
    wanted = [other for other, swap in zip(others, swapped.tolist(), strict=True) if swap]
    if not wanted:
        return x
    shown = x.clone()
    shown[swapped.to(x.device)] = to_unit(data.read(wanted).images.to(x.device, non_blocking=True))
    return shown


def shown(x: Tensor, noise: Tensor, others: Sequence[int], swapped: Tensor, data: Dataset) -> Tensor:
    """What a surrogate sees, as it would be saved: ``noise`` [N, C, H, W] on :func:`hosts`, in whole grey levels."""
    seen = torch.clamp(hosts(x, others, swapped, data) + noise, 0, 1)
    return rounded(seen * 255) / 255


def drawn(share: float, seed: int, step: int, ids: Sequence[str]) -> Tensor:
    """Whether each sample is swapped at ``step``, bool [N] on the CPU, true with probability ``share``."""
    if share == 0:
        return torch.zeros(len(ids), dtype=torch.bool)
    return keyed.uniform(seed, "veil swap", step, keyed.keys_of(ids)) < share
