"""How strong the noise is for whoever looks at a volume through each window, or normalises it."""

import math
from collections.abc import Mapping

import numpy as np

from medveil.launch.data.formats.normalise import NORMALISATIONS, normalised, window_of
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import change_in_levels
from medveil.launch.data.native import NativeFile


class Visibility:
    """The root mean square and the largest of the change, in grey levels, of the voxels that were changed.

    Under every declared window, and after each of :data:`NORMALISATIONS` by the original volume's values, whose grey
    levels 0 and 255 are its ends (of a z-score three standard deviations from the mean).
    """

    def __init__(self) -> None:
        self._squares: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def add(self, file: NativeFile, original: Stored, saved: Stored) -> None:
        """Measure one file; pictures of 8 bits have no other levels than their own."""
        if file.kind == "picture":
            return
        values = original.image_values()
        # A volume of one value has no range to be normalised by.
        laid = {how: window_of(original, how) for how in NORMALISATIONS if values.size and values.min() < values.max()}
        for plane in range(original.planes):
            before, after = original.values[plane], saved.values[plane]
            where = before != after
            if not where.any():
                continue
            for window in file.windows:
                self._add(window.name, change_in_levels(before[where], after[where], original.scale, (window,)))
            for how, window in laid.items():
                levels = [normalised(one, plane, how, window) for one in (original, saved)]
                self._add(how, np.abs(levels[1] - levels[0])[where])

    def _add(self, name: str, change: "np.ndarray[tuple[int, ...], np.dtype[np.floating]]") -> None:
        change = change.astype(np.float64)
        self._squares[name] = self._squares.get(name, 0.0) + float(np.square(change).sum())
        self._largest[name] = max(self._largest.get(name, 0.0), float(change.max()))
        self._count[name] = self._count.get(name, 0) + change.size

    def shown(self) -> dict[str, dict[str, float]]:
        """``rms`` and ``max`` by the name of the window or normalisation."""
        return {
            name: {
                "rms": round(math.sqrt(squares / self._count[name]), 3),
                "max": round(self._largest[name], 3),
            }
            for name, squares in self._squares.items()
        }


def line(shown: Mapping[str, Mapping[str, float]]) -> str | None:
    """For a person; None where nothing was measured."""
    if not shown:
        return None
    said = "; ".join(f"{name} {one['rms']:.2f}, at most {one['max']:.2f}" for name, one in shown.items())
    return f"noise in grey levels (RMS where changed) under each window and normalisation: {said}"
