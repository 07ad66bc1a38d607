"""The ways in which a training looks at values: through a declared window, or normalised by what a file holds."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import SHARES, Window, window_levels

Normalisation = Literal["min-max", "percentile", "z-score"]

NORMALISATIONS: tuple[Normalisation, ...] = ("min-max", "percentile", "z-score")

_DEVIATIONS = 3
"""Standard deviations around the mean that a z-score lays on grey levels 0 to 255; further values go beyond."""


def window_of(stored: Stored, how: Normalisation) -> Window:
    """The values of the volume that ``how`` lays on grey levels 0 and 255."""
    values = stored.scale.values(stored.image_values())
    if how == "min-max":
        low, high = float(values.min()), float(values.max())
    elif how == "percentile":
        low, high = map(float, np.percentile(values, SHARES))
    else:
        mean, reach = float(values.mean()), _DEVIATIONS * float(values.std())
        low, high = mean - reach, mean + reach
    return Window(how, low, high) if low < high else Window(how, low - 0.5, low + 0.5)


def normalised(stored: Stored, plane: int, how: Normalisation, window: Window) -> npt.NDArray[np.float32]:
    """Grey levels of a plane under ``window`` of :func:`window_of`, not rounded, as networks are given them.

    [H, W] or [H, W, 3]; of a z-score they may lie beyond 0 and 255.
    """
    values = stored.values[plane]
    if how == "z-score":
        levels = (stored.scale.values(values) - window.low) * (255 / window.width)
    else:
        levels = window_levels(values, stored.scale, window)
    return (255 - levels if stored.inverted else levels).astype(np.float32)
