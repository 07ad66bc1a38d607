"""Keyed randomness: every random number is a function of (seed, purpose, step, sample id), never of a stream.

So a checkpoint needs no generator state, results do not depend on how samples are split over processes, and CPU and
GPU draw the same numbers. The generator is Philox4x32-10 (``kernels/draws``).
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medveil.kernels import philox_words

_MASK = 0xFFFFFFFF


def _digest(*parts: object) -> int:
    """64 bits that stand for ``parts``."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def keys_of(ids: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """One int64 key per stable id; the same id has the same key everywhere."""
    return torch.tensor([_digest(i) >> 1 for i in ids], dtype=torch.int64, device=device)


def words_at(seed: int, purpose: str, steps: Tensor, keys: Tensor, shape: Sequence[int]) -> Tensor:
    """32 random bits per element, in int64, for each of ``steps`` (int64 [S]): ``[S, len(keys), *shape]``.

    ``keys`` comes from :func:`keys_of`.
    """
    digest = _digest(seed, purpose)
    found = philox_words(keys, steps, (digest & _MASK, digest >> 32), math.prod(shape))
    return found.reshape(len(steps), len(keys), *shape)


def words(seed: int, purpose: str, step: int, keys: Tensor, shape: Sequence[int]) -> Tensor:
    """:func:`words_at` of one step: ``[len(keys), *shape]``."""
    return words_at(seed, purpose, torch.full((1,), step & _MASK, device=keys.device), keys, shape)[0]


def uniform(seed: int, purpose: str, step: int, keys: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """float32 in [0, 1), ``[len(keys), *shape]``, with 24 random bits each."""
    return as_uniform(words(seed, purpose, step, keys, shape))


def as_uniform(found: Tensor) -> Tensor:
    """float32 in [0, 1) of :func:`words`."""
    return (found >> 8).to(torch.float32) * 2.0**-24


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
