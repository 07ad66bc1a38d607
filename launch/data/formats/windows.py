"""What a bound in grey levels means for images of more than 256 values.

A grey level is 1/255 of a window, and whoever looks at an image or trains on it chooses the window. So the windows are
declared, and a change keeps within the bound under each of them: the values that a voxel may take are one interval, for
``levels(v) = 255 clip((v - low) / (high - low), 0, 1)`` never falls as v grows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medveil.errors import UserError

Values = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SHARES = (0.5, 99.5)
"""The percentiles between which a volume without a declared window is looked at."""

TOLERANCE = 1e-4
"""Grey levels by which a change of floating-point voxels may exceed the bound: the rounding of 32 bits."""


@dataclass(frozen=True)
class Window:
    """The values, rescaled, that are looked at as grey levels 0 to 255: ``low`` < ``high``, both finite."""

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError(f"window {self.name} of {self.low:g} to {self.high:g} is empty: give low < high")

    @staticmethod
    def centred(name: str, width: float, centre: float) -> "Window":
        """As radiologists say it: ``width`` around ``centre``."""
        return Window(name, centre - width / 2, centre + width / 2)

    @property
    def width(self) -> float:
        return self.high - self.low

    def levels(self, values: Values) -> Floats:
        """Grey levels of rescaled ``values``, float64 in [0, 255]."""
        return np.clip((values.astype(np.float64) - self.low) * (255 / self.width), 0, 255)


CT = (
    Window.centred("soft tissue", 400, 40),
    Window.centred("lung", 1500, -600),
    Window.centred("bone", 1800, 400),
)
"""In Hounsfield units, for every CT."""

BRAIN = Window.centred("brain", 80, 40)
"""For CT of heads, besides :data:`CT`."""

_LEAST_SLOPE = 1e-30
"""A smaller one is damage; to divide by it gives infinity."""

EIGHT_BITS = (Window("8 bits", 0, 255),)
"""Of images that are grey levels already."""


@dataclass(frozen=True)
class Scale:
    """``slope`` s + ``intercept`` is the value that the stored number s stands for."""

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)) or abs(self.slope) < _LEAST_SLOPE:
            raise UserError(f"a rescale slope of {self.slope:g} and intercept of {self.intercept:g} gives no values")

    def values(self, stored: Values) -> Floats:
        return stored.astype(np.float64) * self.slope + self.intercept

    def stored(self, values: Floats | float) -> Floats:
        """The inverse of :meth:`values`, unrounded."""
        return (np.asarray(values, dtype=np.float64) - self.intercept) / self.slope


def scale_of(slope: Any, intercept: Any, path: Path) -> Scale:
    """The scale of the file at ``path``. Raises :class:`UserError` naming it."""
    try:
        return Scale(float(slope), float(intercept))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def window_levels(stored: Values, scale: Scale, window: Window) -> Floats:
    """Grey levels of ``stored`` under ``window``, float64 in [0, 255]."""
    return _by_value(stored, lambda values: (window.levels(scale.values(values)),))[0]


def percentile_window(parts: Sequence[Values], scale: Scale) -> Window | None:
    """From the 0.5 to the 99.5 percentile of the stored values of a whole volume or set, or None if all are equal.

    Where these percentiles are equal it goes from the smallest to the largest value.
    """
    stored = np.concatenate([part.ravel() for part in parts]) if len(parts) != 1 else parts[0].ravel()
    if not len(stored):
        return None
    low, high = scale.values(np.percentile(stored, SHARES))
    if low == high:
        low, high = scale.values(np.asarray([stored.min(), stored.max()]))
    low, high = min(low, high), max(low, high)
    return None if low == high else Window("percentiles 0.5 to 99.5", float(low), float(high))


def allowed(stored: Values, scale: Scale, windows: Sequence[Window], levels: int | None) -> tuple[Floats, Floats]:
    """The lowest and highest stored value that each voxel may take, whole numbers for integers.

    The change is at most ``levels`` grey levels under each of ``windows``, and at most ``levels`` 255ths of the widest
    of them where all are saturated. None: no bound, infinite.
    """
    if levels is None:
        infinite = np.full(stored.shape, np.inf)
        return -infinite, infinite
    low, high = _by_value(stored, lambda values: _allowed(values, scale, windows, levels))
    return low, high


def _allowed(stored: Values, scale: Scale, windows: Sequence[Window], levels: int) -> tuple[Floats, Floats]:
    values = scale.values(stored)
    cap = levels / 255 * max(window.width for window in windows)
    low, high = values - cap, values + cap
    for window in windows:
        grey, unit = window.levels(values), window.width / 255
        down, up = grey - levels, grey + levels
        # Below the window every value is black, above it white: from there on a change does not show.
        low = np.maximum(low, np.where(down <= 0, -np.inf, window.low + down * unit))
        high = np.minimum(high, np.where(up >= 255, np.inf, window.low + up * unit))
    ends = scale.stored(low), scale.stored(high)
    low, high = np.minimum(*ends), np.maximum(*ends)
    if stored.dtype.kind in "ui":
        # An exact bound such as 4 levels of 255 must not be lost to the last digit of a division.
        low, high = np.ceil(low - 1e-9), np.floor(high + 1e-9)
    return np.minimum(low, stored), np.maximum(high, stored)


def change_in_levels(before: Values, after: Values, scale: Scale, windows: Sequence[Window]) -> Floats:
    """How far each voxel moved, in grey levels: the most under any of ``windows``."""
    moved = [np.abs(window_levels(after, scale, one) - window_levels(before, scale, one)) for one in windows]
    largest: Floats = np.maximum.reduce(moved)
    return largest


def _by_value(stored: Values, of: Callable[[Values], tuple[Floats, ...]]) -> tuple[Floats, ...]:
    """``of(stored)``, a function of each number alone: looked up where there are fewer numbers than voxels."""
    if stored.dtype.kind in "ui" and stored.dtype.itemsize <= 2 and stored.size:
        first, last = int(stored.min()), int(stored.max())
        if last - first < stored.size:
            places = stored.astype(np.int32) - first
            return tuple(table[places] for table in of(np.arange(first, last + 1)))
    return of(stored)


def check_room(step: float, windows: Sequence[Window], levels: int | None, name: str) -> None:
    """Raise :class:`UserError` when not one ``step`` of the values of ``name`` fits the bound under any window."""
    if levels and all(window.width * levels / 255 < step for window in windows):
        widest = max(windows, key=lambda window: window.width)
        raise UserError(
            f"{name}: {levels} grey levels of window {widest.name} ({widest.width:g} wide) are less than one stored "
            f"unit ({step:g}): give a larger bound or a wider window"
        )


def parse_windows(text: str) -> tuple[Window, ...]:
    """``ct``, ``ct+brain``, or WIDTH/CENTRE, several by commas: "400/40,1500/-600". Raises :class:`UserError`."""
    named = {"ct": CT, "ct+brain": (*CT, BRAIN)}
    if text.strip().lower() in named:
        return named[text.strip().lower()]
    windows = []
    for part in text.split(","):
        try:
            width, centre = map(float, part.strip().split("/"))
        except ValueError:
            raise UserError(f"--windows {text!r}: give ct, ct+brain, or WIDTH/CENTRE such as 400/40,80/40") from None
        windows.append(Window.centred(part.strip(), width, centre))
    return tuple(windows)
