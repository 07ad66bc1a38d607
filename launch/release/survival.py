"""How much of the noise is left after what every exploiter does first: resizing."""

import math
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from medveil.veil.pipeline import RESIZERS

SIDES = (224, 256, 512)
SAMPLE = 32
"""Images that it is measured on, evenly spread."""

_FEW = 4
"""An image is small whose sides fit so often into the square's: of larger ones the products take longer."""

HALF = 0.5
"""The share of the noise's RMS below which a release warns."""


class Survival:
    """The root mean square of the noise after each resizer to squares of each side, as a share of what it was."""

    def __init__(self) -> None:
        self._squares: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, noise: Tensor) -> None:
        """Measure one image's noise, grey levels [1, C, H, W]."""
        noise = noise.float()
        before = float(noise.square().mean())
        for side in SIDES if before > 0 else ():
            for name in RESIZERS:
                self._squares[side][name].append(mean_square(noise, name, side) / before)

    def shares(self) -> dict[str, dict[str, float]]:
        """By side, then resizer; of several images the root of the mean of squares."""
        return {
            str(side): {name: round(math.sqrt(sum(found) / len(found)), 3) for name, found in by_name.items()}
            for side, by_name in self._squares.items()
        }


def mean_square(noise: Tensor, name: str, side: int) -> float:
    """Of ``noise`` float32 [1, C, H, W] after the resizer ``name`` to a square of ``side``.

    A resizer is linear and takes rows and columns in turn: A N B^T, whose mean square is that of N under A^T A and
    B^T B. So a small image is not enlarged, which would take nearly all of the time of its release.
    """
    height, width = noise.shape[-2:]
    if _FEW * max(height, width) > side:
        return float(RESIZERS[name](noise, (side, side)).square().mean())
    image = noise[0].double()
    weighed = _weights(name, side, height) @ image @ _weights(name, side, width)
    return float((weighed * image).sum() / len(image))


@lru_cache(maxsize=2 * len(SIDES) * len(RESIZERS))
def _weights(name: str, side: int, size: int) -> Tensor:
    """A^T A / side, float64 [size, size], for the matrix A [side, size] by which ``name`` resizes a column."""
    column = RESIZERS[name](torch.eye(size, dtype=torch.float64)[None, None], (side, size))[0, 0]
    return column.T @ column / side


def warning(shares: Mapping[str, Mapping[str, float]]) -> str | None:
    """A line about the resizer that leaves least, if that is below half; else None."""
    found = [(share, side, name) for side, by_name in shares.items() for name, share in by_name.items()]
    if not found or min(found)[0] >= HALF:
        return None
    share, side, name = min(found)
    return (
        f"warning: {share:.0%} of the noise (RMS) is left after resizing to {side} pixels ({name}): "
        "exploiters may train at that size; audit with --size"
    )
