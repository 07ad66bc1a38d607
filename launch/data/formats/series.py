"""A DICOM series in a folder, a file for each slice, as one volume: the slices in the order of their positions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats import dicom
from medveil.launch.data.formats.geometry import normal_of, positions_of
from medveil.launch.data.formats.stored import Stored

if TYPE_CHECKING:
    from pydicom import Dataset

_ALIKE = (
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "ImageOrientationPatient",
    "PixelSpacing",
    "PhotometricInterpretation",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
)
"""What all slices of a volume have in common."""

_GAP = 0.05
"""By so much of the usual distance may that of two neighbours differ: positions are written with few digits."""


def ordered(slices: Sequence[Path]) -> tuple[Path, ...]:
    """``slices`` by their position along the normal of their planes.

    Raises :class:`UserError` where they are no one volume: what :data:`_ALIKE` names differs, an instance UID or
    a position occurs twice, or a position is missing or lies at another distance than the others, as where a slice is.
    """
    headers = {path: dicom.read_dataset(path, pixels=False) for path in slices}
    first = slices[0]
    for path, header in headers.items():
        for name in _ALIKE:
            if header.get(name) != headers[first].get(name):
                raise UserError(f"{path} has another {name} than {first}: one series a folder, take it out")
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{path} has several frames: it is a volume of its own, move it out of {path.parent}")
    owners: dict[str, Path] = {}
    for path, header in headers.items():
        if (other := owners.setdefault(str(header.SOPInstanceUID), path)) != path:
            raise UserError(f"{path} has the SOPInstanceUID of {other}: what refers to one means both; export it again")
    places = {path: _place(header, path) for path, header in headers.items()}
    found = tuple(sorted(slices, key=lambda path: places[path]))
    gaps = np.diff([places[path] for path in found])
    for before, after, gap in zip(found, found[1:], gaps, strict=False):
        usual = float(np.median(gaps))
        if gap <= 1e-4:
            raise UserError(f"{before} and {after} have the same position: one series a folder, take one out")
        if abs(gap - usual) > _GAP * usual:
            raise UserError(
                f"{before} and {after} are {gap:g} mm apart and other neighbours {usual:g} mm: a slice is missing, or "
                "there are too many"
            )
    return found


def read(slices: Sequence[Path], *, identified: bool = False) -> Stored:
    """The volume of ``slices``, a plane for each, in this order; ``identified`` as in :func:`dicom.read`.

    Raises :class:`UserError` as that does, and for slices that are not stored alike.
    """
    planes = [dicom.read(path, identified=identified) for path in slices]
    first = planes[0]
    for path, plane in zip(slices, planes, strict=True):
        for name in ("scale", "limits", "inverted"):
            if getattr(plane, name) != getattr(first, name):
                raise UserError(f"{path} has another {name} than {slices[0]}: one series a folder, take it out")
        if plane.values.shape[1:] != first.values.shape[1:] or plane.values.dtype != first.values.dtype:
            raise UserError(f"{path} is stored in another form than {slices[0]}: one series a folder, take it out")
    padding = None
    if any(plane.padding is not None for plane in planes):
        padding = np.concatenate(
            [np.zeros(one.values.shape[:3], bool) if one.padding is None else one.padding for one in planes]
        )
    return Stored(
        values=np.concatenate([plane.values for plane in planes]),
        scale=first.scale,
        limits=first.limits,
        padding=padding,
        windows=first.windows if all(plane.windows == first.windows for plane in planes) else (),
        inverted=first.inverted,
        spacing=first.spacing,
        voids=tuple(sorted({void for plane in planes for void in plane.voids})),
    )


def _place(header: "Dataset", path: Path) -> float:
    """Of a slice along the normal of its plane, in mm."""
    return float(normal_of(header, path) @ positions_of(header, path)[0])
