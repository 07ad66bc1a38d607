"""Where the voxels of a DICOM image are, and a NIfTI label map laid on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats import dicom
from medveil.launch.data.formats.windows import Floats, Values

if TYPE_CHECKING:
    from pydicom import Dataset

SKEW = 0.01
"""By so much may the products of two directions differ from those of unit vectors at right angles."""

OFF = 0.25
"""Voxels by which a label map may lie beside its image: writers round affines."""


def positions_of(header: "Dataset", path: Path) -> Floats:
    """Of the first pixel of each frame, mm [P, 3]. Raises :class:`UserError` where the file does not tell."""
    found = [group.get("ImagePositionPatient") for group in dicom.groups(header, "PlanePositionSequence")]
    found = found or [header.get("ImagePositionPatient")]
    if any(one is None or len(one) != 3 for one in found):
        raise UserError(f"{path} does not tell the position of its slices (ImagePositionPatient): export it again")
    places = np.asarray(found, dtype=np.float64)
    if not np.isfinite(places).all():
        raise UserError(f"{path} has a position that is no number (ImagePositionPatient): export it again")
    return places


def normal_of(header: "Dataset", path: Path) -> Floats:
    """The unit vector across the planes, [3]. Raises :class:`UserError` where the file does not tell."""
    row, column = _directions(header, path)
    return np.cross(row, column)


def affine_of(slices: Sequence[Path]) -> Floats:
    """From (plane, row, column) of the volume of ``slices`` (or frames of one file) to mm, as NIfTI has them, [4, 4].

    The planes of a single slice are 1 mm apart.
    """
    headers = [dicom.read_dataset(path, pixels=False) for path in slices]
    first, path = headers[0], slices[0]
    row, column = _directions(first, path)
    spacing = dicom.spacing_of(first, path)
    if not spacing:
        raise UserError(f"{path} does not tell its pixel spacing: export it again, or give its mask as PNG")
    places = np.concatenate([positions_of(header, one) for header, one in zip(headers, slices, strict=True)])
    across = np.cross(row, column) if len(places) == 1 else (places[-1] - places[0]) / (len(places) - 1)
    return affine_in(row, column, spacing, across, places[0])


def affine_in(row: Floats, column: Floats, spacing: Sequence[float], across: Floats, place: Floats) -> Floats:
    """From (plane, row, column) to mm, as NIfTI has them, [4, 4], of what DICOM tells: unit vectors along a row and a
    column, the ``spacing`` of rows and of columns, the step ``across`` planes, the ``place`` of the first pixel.
    """
    affine = np.eye(4)
    # Along a row the column grows, and the other way round.
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = across, column * spacing[0], row * spacing[1]
    affine[:3, 3] = place
    # DICOM points to the left and to the back, NIfTI to the right and to the front.
    turned: Floats = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return turned


def laid_on(labels: Values, affine: Floats, slices: Sequence[Path], shape: Sequence[int], name: Path) -> Values:
    """``labels`` [X, Y, Z] of a NIfTI file with ``affine`` as [P, H, W] of the image of ``slices``, ``shape`` its own.

    Raises :class:`UserError` where the two are not the same voxels, turned or mirrored.
    """
    step = np.linalg.inv(affine) @ affine_of(slices)
    turn = step[:3, :3].copy()
    if shape[0] == 1:
        turn[:, 0] /= np.abs(turn[:, 0]).max()
    axes = np.abs(turn).argmax(0)
    signs = np.sign(turn[axes, range(3)])
    whole = np.zeros((3, 3))
    whole[axes, range(3)] = signs
    sides = [labels.shape[axis] for axis in axes]
    start = np.where(whole.sum(1) < 0, np.asarray(labels.shape) - 1, 0)
    off = np.abs(turn - whole) @ np.asarray(shape) + (0 if shape[0] == 1 else np.abs(step[:3, 3] - start))
    if sorted(axes) != [0, 1, 2] or sides != list(shape) or off.max() > OFF:
        raise UserError(f"{name} does not lie on the voxels of {slices[0].parent.name}/{slices[0].name}: resample it")
    return np.flip(labels.transpose(axes), tuple(axis for axis in range(3) if signs[axis] < 0))


def _directions(header: "Dataset", path: Path) -> Floats:
    """Along a row, and along a column: unit vectors [2, 3]."""
    found = [group.get("ImageOrientationPatient") for group in dicom.groups(header, "PlaneOrientationSequence")]
    found = found or [header.get("ImageOrientationPatient")]
    if found[0] is None or len(found[0]) != 6 or any(one != found[0] for one in found):
        raise UserError(
            f"{path} does not tell one orientation of its slices (ImageOrientationPatient): export it again"
        )
    directions = np.asarray(found[0], dtype=np.float64).reshape(2, 3)
    if not np.abs(directions @ directions.T - np.eye(2)).max() < SKEW:
        raise UserError(
            f"{path} has rows and columns that are not at right angles (ImageOrientationPatient): export it again"
        )
    return directions
