"""How much of the noise is left after what every exploiter does first: resizing."""

import math
from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from medveil.veil.pipeline import RESIZERS

SIDES = (224, 256, 512)
SAMPLE = 32
"""Images that it is measured on, evenly spread."""

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
            for name, resize in RESIZERS.items():
                after = noise if noise.shape[-2:] == (side, side) else resize(noise, (side, side))
                self._squares[side][name].append(float(after.square().mean()) / before)

    def shares(self) -> dict[str, dict[str, float]]:
        """By side, then resizer; of several images the root of the mean of squares."""
        return {
            str(side): {name: round(math.sqrt(sum(found) / len(found)), 3) for name, found in by_name.items()}
            for side, by_name in self._squares.items()
        }


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
