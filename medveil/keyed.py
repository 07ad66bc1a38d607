"""Keyed randomness: every random number is a function of (seed, purpose, step, sample id), never of a stream.

So a checkpoint needs no generator state, results do not depend on how samples are split over processes, and CPU and
GPU draw the same numbers. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) in integer tensor arithmetic.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def _digest(*parts: object) -> int:
    """64 bits that stand for ``parts``."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def keys_of(ids: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """One int64 key per stable id; the same id has the same key everywhere."""
    return torch.tensor([_digest(i) >> 1 for i in ids], dtype=torch.int64, device=device)


def philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four 32-bit words (in int64 tensors) for each four-word counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # The products may wrap to negative; the masks take back the unsigned halves.
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def words(seed: int, purpose: str, step: int, keys: Tensor, shape: Sequence[int]) -> Tensor:
    """32 random bits per element, in int64: ``[len(keys), *shape]``. ``keys`` comes from :func:`keys_of`."""
    count = math.prod(shape)
    blocks = torch.arange(-(-count // 4), dtype=torch.int64, device=keys.device)
    digest = _digest(seed, purpose)
    counter = torch.broadcast_tensors(
        blocks[None, :],
        torch.full((1, 1), step & _MASK, dtype=torch.int64, device=keys.device),
        (keys & _MASK)[:, None],
        ((keys >> 32) & _MASK)[:, None],
    )
    four = philox(list(counter), (digest & _MASK, digest >> 32))
    return torch.stack(four, dim=-1).flatten(1)[:, :count].reshape(len(keys), *shape)


def uniform(seed: int, purpose: str, step: int, keys: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """float32 in [0, 1), ``[len(keys), *shape]``, with 24 random bits each."""
    return (words(seed, purpose, step, keys, shape) >> 8).to(torch.float32) * 2.0**-24


def integers(seed: int, purpose: str, step: int, keys: Tensor, high: int, shape: Sequence[int] = ()) -> Tensor:
    """int64 in [0, high), ``[len(keys), *shape]``; ``high`` at most 2^31."""
    return (words(seed, purpose, step, keys, shape) * high) >> 32


def permutation(count: int, seed: int, purpose: str, epoch: int) -> list[int]:
    """The order of ``count`` samples in one epoch: a function of (seed, purpose, epoch) alone."""
    bits = np.random.Philox(key=_digest(seed, purpose, epoch))
    order: list[int] = np.random.Generator(bits).permutation(count).tolist()
    return order


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for a library generator (weight initialisation), separate for each purpose."""
    return _digest(seed, purpose) >> 1
