"""Noise kept per sample: during a fit each rank holds the samples it owns; afterwards it is found by stable id."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medveil.runtime import Runtime

_CHUNK = 1024


class NoiseStore:
    """Noise [C, H, W] for each of ``keys`` (int64 [n]); sample ``i`` belongs to rank ``i % world``.

    ``dtype``: float32 while noise is still worked on, int8 for final grey levels, a quarter as much in a checkpoint.
    """

    def __init__(
        self, keys: Tensor, shape: Sequence[int], runtime: Runtime, dtype: torch.dtype = torch.float32
    ) -> None:
        self.keys, self.runtime = keys, runtime
        owned = len(range(runtime.rank, len(keys), runtime.world))
        self._noise = torch.zeros(owned, *shape, dtype=dtype)

    def local_slice(self, batch: Sequence[int]) -> list[int]:
        """The samples of a global batch that this rank owns."""
        return [index for index in batch if index % self.runtime.world == self.runtime.rank]

    def read(self, indices: Sequence[int], device: torch.device) -> Tensor:
        return self._noise[self._rows(indices)].to(device)

    def write(self, indices: Sequence[int], noise: Tensor) -> None:
        self._noise[self._rows(indices)] = noise.to(self._noise.dtype).cpu()

    def merged(self) -> Tensor:
        """The noise of every sample in the order of ``keys``, [n, C, H, W]; every rank must call it."""
        out = torch.empty(len(self.keys), *self._noise.shape[1:], dtype=self._noise.dtype)
        for first in range(0, len(out), _CHUNK):
            indices = range(first, min(first + _CHUNK, len(out)))
            mine = self.local_slice(indices)
            part = torch.zeros(len(indices), *out.shape[1:], dtype=out.dtype)
            part[[index - first for index in mine]] = self._noise[self._rows(mine)]
            out[first : first + len(part)] = self.runtime.all_reduce(part.to(self.runtime.device)).cpu()
        return out

    def load(self, noise: Tensor) -> None:
        self._noise.copy_(noise[self.runtime.rank :: self.runtime.world])

    def _rows(self, indices: Sequence[int]) -> Tensor:
        return torch.tensor([index // self.runtime.world for index in indices], dtype=torch.int64)


def rows_of(known: Tensor, keys: Tensor) -> Tensor:
    """The place of each of ``keys`` among ``known`` (both int64, of stable ids), int64 on the CPU.

    Raises ``ValueError`` for a key that is not known: noise exists only for the samples that were fitted.
    """
    known, keys = known.cpu(), keys.cpu()
    order = known.argsort()
    rows = order[torch.searchsorted(known[order], keys).clamp_max(len(known) - 1)]
    if not torch.equal(known[rows], keys):
        raise ValueError("there is noise only for the samples that were fitted, and one of these was not")
    return rows
