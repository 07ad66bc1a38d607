"""The swap: one image's noise shown on another image, so that nothing but the noise tells the mask."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medveil import keyed
from medveil.feed import Feed, Samples
from medveil.quantise import to_unit
from medveil.runtime import Runtime, local_slice
from medveil.veil.jpeg import rounded


def partners(batch: Sequence[int]) -> list[int]:
    """For each sample of a global batch another one of it: the next, and for the last the first."""
    return [*batch[1:], *batch[:1]]


class Visit(NamedTuple):
    """A step's samples on this rank, and what their noise is shown on."""

    batch: Sequence[int]
    """The global batch: indices."""
    mine: Sequence[int]
    """Those of this rank."""
    swapped: Tensor
    """Which of them, as places among them, lend their noise to their partner; int64, ascending."""
    samples: Samples
    """Of this rank's."""
    others: Tensor
    """The partners of the swapped ones, uint8 [M, C, H, W]."""


def visits(
    feed: Feed, runtime: Runtime, batches: Iterable[Sequence[int]], share: float, seed: int, first: int
) -> Iterator[Visit]:
    """Of each global batch this rank's visit, read ahead. ``batches`` are those of the steps from ``first`` on; of each
    a ``share`` of the samples is swapped, drawn by (``seed``, step, id)."""
    keys = keyed.keys_of(feed.data.ids)

    def steps() -> Iterator[tuple[tuple[Sequence[int], Sequence[int], Tensor], Sequence[int]]]:
        for step, batch in enumerate(batches, first):
            mine, theirs = local_slice(batch, runtime), local_slice(partners(batch), runtime)
            swapped = drawn(share, seed, step, keys[list(mine)])
            yield (batch, mine, swapped), [*mine, *(theirs[place] for place in swapped.tolist())]

    for (batch, mine, swapped), samples in feed.along(steps()):
        count = len(mine)
        own = Samples(samples.images[:count], samples.targets[:count], samples.keys[:count])
        yield Visit(batch, mine, swapped, own, samples.images[count:])


def drawn(share: float, seed: int, step: int, keys: Tensor) -> Tensor:
    """The places of the samples that are swapped at ``step``: each with probability ``share``, by its key."""
    if share in (0, 1):
        return torch.arange(len(keys) if share else 0)
    return (keyed.uniform(seed, "veil swap", step, keys) < share).nonzero()[:, 0]


def hosts(x: Tensor, swapped: Tensor, others: Tensor) -> Tensor:
    """Images that noise is shown on, float [N, C, H, W] in [0, 1]: ``x``, and at the places ``swapped`` the ``others``
    (uint8)."""
    if len(swapped) == 0:
        return x
    return x.index_copy(0, swapped.to(x.device, non_blocking=True), to_unit(others))


def shown(x: Tensor, noise: Tensor, visit: Visit) -> Tensor:
    """What a surrogate sees, as it would be saved: ``noise`` [N, C, H, W] on :func:`hosts`, in whole grey levels."""
    seen = torch.clamp(hosts(x, visit.swapped, visit.others) + noise, 0, 1)
    return rounded(seen * 255) / 255
