"""The voxels of one file as they are stored, whatever the format."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medveil.launch.data.formats.windows import Scale, Values, Window, allowed, window_levels

MAX_VOXELS = 1 << 30
"""Of one file: more are not read."""


@dataclass(frozen=True)
class Stored:
    """``values``: [P, H, W], or [P, H, W, 3] for colour: P planes (slices, frames) of uint8, int8, uint16, int16,
    float32 or float64. ``scale``: to what they stand for. ``limits``: the lowest and highest number that may be stored.
    ``padding``: bool [P, H, W] where there is no image, None for nowhere; ``voids``: from which to which number that is
    said, wherever there is one. ``windows``: that the file itself declares.
    ``inverted``: low values are bright. ``spacing``: of rows, columns and planes in mm, where known.
    """

    values: Values
    scale: Scale = field(default_factory=Scale)
    limits: tuple[float, float] = (0, 255)
    padding: npt.NDArray[np.bool_] | None = None
    windows: tuple[Window, ...] = ()
    inverted: bool = False
    spacing: tuple[float, ...] = ()
    voids: tuple[tuple[int, int], ...] = ()

    @property
    def planes(self) -> int:
        return self.values.shape[0]

    @property
    def channels(self) -> int:
        return 3 if self.values.ndim == 4 else 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def step(self) -> float:
        """The smallest change of a value: of whole numbers one unit, of floating-point ones any."""
        return abs(self.scale.slope) if self.values.dtype.kind in "ui" else 0.0

    def image_values(self) -> Values:
        """The stored values that are not padding, flat."""
        return self.values.ravel() if self.padding is None else self.values[~self.padding]

    def grey(self, plane: int, window: Window) -> npt.NDArray[np.uint8]:
        """What is seen of a plane under ``window``: uint8 [H, W] or [H, W, 3]."""
        levels = np.rint(window_levels(self.values[plane], self.scale, window)).astype(np.uint8)
        return 255 - levels if self.inverted else levels

    def changed(
        self,
        plane: int,
        noise: npt.NDArray[np.float32],
        windows: Sequence[Window],
        levels: int | None,
        support: npt.NDArray[np.bool_] | None = None,
    ) -> Values:
        """The plane with ``noise``, in grey levels of the first of ``windows``, of the plane's shape.

        The change is rounded to stored units and kept within ``levels`` under each of ``windows``, within the limits,
        off the padding, and within ``support`` [H, W].
        """
        before = self.values[plane]
        unit = windows[0].width / 255 / self.scale.slope
        wanted = before + noise.astype(np.float64) * (-unit if self.inverted else unit)
        whole = before.dtype.kind in "ui"
        low, high = allowed(before, self.scale, windows, levels)
        low, high = np.maximum(low, self.limits[0]), np.minimum(high, self.limits[1])
        after = np.clip(np.rint(wanted) if whole else wanted, low, high).astype(before.dtype)
        if not whole:
            # 32 bits may round the ends of the interval to what lies beyond them.
            after = np.where((after < low) | (after > high), np.nextafter(after, before), after)
        fixed = np.zeros(before.shape[:2], dtype=bool) if support is None else ~support
        if self.padding is not None:
            fixed |= self.padding[plane]
        for first, last in self.voids:
            # What looks like padding afterwards would be taken for it.
            fixed |= (after >= first) & (after <= last)
        return np.where(fixed[..., None] if before.ndim == 3 else fixed, before, after)
