"""The files of a set as they came: what is perturbed, at their own size and depth, when a release is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import EIGHT_BITS, Values, Window
from medveil.launch.data.images import read_mask, read_orientation, read_size

Noise = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
V = TypeVar("V", bound=np.generic)


@dataclass(frozen=True)
class NativeFile:
    """One image file and its masks: the samples ``first`` to ``first + planes`` of its set.

    ``name``: of the released image, such as ``images/ID.png``; ``mask``: of its released mask, or None. ``windows``:
    under which its values are looked at, and its change is bound; the first is what the fit sees. ``labels``: which
    values of a label map are foreground; none: all but 0. ``identified``: see ``formats.dicom.read``.
    ``raw``: whether a mask is released as the label map that it is. ``step``: the smallest change of a value.
    """

    image: Path
    masks: tuple[Path, ...]
    name: str
    mask: str | None
    first: int
    planes: int = 1
    windows: tuple[Window, ...] = EIGHT_BITS
    kind: Kind = "picture"
    labels: tuple[int, ...] = ()
    identified: bool = False
    raw: bool = False
    step: float = 1.0

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.planes)

    def stored(self) -> Stored:
        """The image as it is stored. Raises :class:`medveil.errors.UserError`."""
        return formats.read(self.image, self.kind, identified=self.identified)

    def label_map(self) -> Values | None:
        """Its mask as it is released, whole numbers [P, H, W]: of pictures the union of all, 0 or 255."""
        if not self.masks:
            return None
        if self.raw:
            return formats.read_labels(self.masks[0])
        orientation, size = read_orientation(self.image), read_size(self.image)
        upright = None if size is None else size[::-1]
        masks = [read_mask(path, orientation, upright).pixels > 0 for path in self.masks]
        return np.logical_or.reduce(masks)[None].astype(np.uint8) * 255

    def foreground(self, labels: Values) -> Mask:
        """Where a label map is foreground, bool [P, H, W]."""
        return np.isin(labels, self.labels) if self.labels else labels > 0


def spread(cells: npt.NDArray[V], size: Sequence[int]) -> npt.NDArray[V]:
    """``cells`` [C, h, w] of the working grid at ``size`` (H, W): each pixel is that of the cell in which its centre
    lies, so that nothing of an amplitude is lost.
    """
    (height, width), (rows, columns) = cells.shape[-2:], size
    row = ((np.arange(rows) + 0.5) * height / rows).astype(np.intp)
    column = ((np.arange(columns) + 0.5) * width / columns).astype(np.intp)
    return cells[:, row[:, None], column]


def native_noise(noise: Noise, size: Sequence[int], channels: int) -> Noise:
    """``noise`` [C, h, w] of the working grid, spread to ``size`` (H, W), as [H, W] or [H, W, 3].

    An image of one channel in a coloured set, which the fit saw as three equal ones, gets the noise of the second.
    """
    wide = spread(noise, size)
    if channels == 1:
        return wide[len(wide) // 2]
    return np.ascontiguousarray(np.broadcast_to(wide, (3, *size)).transpose(1, 2, 0))


def keep_largest(change: npt.NDArray[np.float64], most: int) -> Mask:
    """Where the ``most`` largest values of ``change`` are, of the shape of it; of equal ones the first."""
    kept = np.zeros(change.size, dtype=bool)
    kept[np.argsort(-change.ravel(), kind="stable")[:most]] = True
    return kept.reshape(change.shape)
