"""The files of a set as they came: what is perturbed, at their own size and depth, when a release is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.dicom_release import Identity
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
    under which its values are looked at, and its change is bound. ``labels``: which
    values of a label map are foreground; none: all but 0. ``identified``: see ``formats.dicom.read``.
    ``raw``: whether a mask is released as the label map that it is. ``step``: the smallest change of a value.
    ``slices``: of a DICOM series in the folder ``image`` its files, in their order; released as ``name/0000.dcm``, ...
    ``drawn``: which of the windows the fit sees each plane under; none: the first.
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
    slices: tuple[Path, ...] = ()
    drawn: tuple[int, ...] = ()

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.planes)

    def seen(self, plane: int) -> tuple[Window, ...]:
        """The windows, that which the fit sees the plane under first."""
        first = self.drawn[plane] if self.drawn else 0
        return (self.windows[first], *self.windows[:first], *self.windows[first + 1 :])

    def place(self, plane: int) -> tuple[str, int | None]:
        """The released file of a plane, and which plane of that it is, where the file has several."""
        if self.slices:
            return f"{self.name}/{plane:04d}.dcm", None
        return self.name, plane if self.planes > 1 else None

    def stored(self) -> Stored:
        """The image as it is stored. Raises :class:`medveil.errors.UserError`."""
        return formats.read(self.image, self.kind, self.slices, identified=self.identified)

    def released(self, folder: Path) -> Stored:
        """The image as a release in ``folder`` has it. Raises :class:`medveil.errors.UserError`."""
        # What a release keeps of a DICOM file says no more of the patient than the original did.
        return formats.read(folder / self.name, self.kind, self._released(folder), identified=True)

    def write(self, folder: Path, values: Values, identity: Identity) -> None:
        """Save ``values`` [P, H, W] or [P, H, W, 3] of the image into the release in ``folder``, and its mask."""
        for plane, (image, path) in enumerate(zip(self.slices, self._released(folder), strict=True)):
            formats.write(path, self.kind, image, values[plane : plane + 1], identity)
        if not self.slices:
            formats.write(folder / self.name, self.kind, self.image, values, identity)
        if self.mask is None or (mask := folder / self.mask).exists():  # the channels of one case share theirs
            return
        if self.raw:
            formats.write_labels(mask, self.masks[0], identity)
        else:
            formats.write(mask, "picture", self.masks[0], self._union(), identity)

    def label_map(self, stored: Stored) -> Values | None:
        """Its mask as it is released, whole numbers [P, H, W]: of pictures the union of all, 0 or 255."""
        if not self.masks:
            return None
        if not self.raw:
            return self._union()
        return formats.read_labels(self.masks[0], self.slices or (self.image,), stored.values.shape[:3])

    def released_labels(self, folder: Path, stored: Stored) -> Values:
        """As :meth:`label_map`, of the release in ``folder``."""
        assert self.mask is not None
        image = self._released(folder) or (folder / self.name,)
        return formats.read_labels(folder / self.mask, image, stored.values.shape[:3])

    def _released(self, folder: Path) -> tuple[Path, ...]:
        """Of a series, its slices in the release."""
        return tuple(folder / self.place(plane)[0] for plane in range(len(self.slices)))

    def _union(self) -> Values:
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
    largest = np.zeros(change.size, dtype=bool)
    largest[np.argsort(-change.ravel(), kind="stable")[:most]] = True
    return largest.reshape(change.shape)
