"""The frames of a DICOM segmentation laid on an image by where they are, without a word of which slice each is of."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats import dicom
from medveil.launch.data.formats.geometry import OFF, affine_in, affine_of
from medveil.launch.data.formats.windows import Floats, Values

if TYPE_CHECKING:
    from pydicom import Dataset


def tells_sources(segmentation: "Dataset") -> bool:
    """Whether every frame names the slice that it is of, pixel for pixel."""
    shared = _first(segmentation.get("SharedFunctionalGroupsSequence"))
    for frame in segmentation.get("PerFrameFunctionalGroupsSequence") or ():
        derived = _first(frame.get("DerivationImageSequence") or shared.get("DerivationImageSequence"))
        sources = derived.get("SourceImageSequence") or ()
        if not sources or any(source.get("SpatialLocationsPreserved") == "NO" for source in sources):
            return False
    return True


def laid_by_position(segmentation: "Dataset", path: Path, slices: Sequence[Path]) -> Values:
    """The segments' numbers on the image of ``slices``, int64 [P, H, W]. The segmentation has its orientation and
    spacing; its frames may cover a part of each slice.

    Raises :class:`UserError` for a frame whose corners are more than a quarter of a voxel off those of the image (of a
    single slice: a quarter of a millimetre across it), for another frame of reference, and for segments that overlap.
    """
    header = dicom.read_dataset(slices[0], pixels=False)
    if (ours := header.get("FrameOfReferenceUID")) != segmentation.get("FrameOfReferenceUID") or not ours:
        raise UserError(f"{path} is in another frame of reference than {slices[0]}: its frames cannot be placed on it")
    planes = len(slices) if len(slices) > 1 else int(header.get("NumberOfFrames") or 1)
    labels = np.zeros((planes, int(header.Rows), int(header.Columns)), np.int64)
    to_voxels = np.linalg.inv(affine_of(slices))
    whole = segmentation.pixel_array
    pixels = whole if whole.ndim == 3 else whole[None]
    for number, (frame, (affine, segment)) in enumerate(zip(pixels, _frames(segmentation, path), strict=True)):
        height, width = frame.shape
        ends = np.array([[0, 0, 0], [0, height - 1, 0], [0, 0, width - 1]])
        corners = (np.c_[ends, np.ones(3)] @ (to_voxels @ affine).T)[:, :3]
        plane, row, column = (int(one) for one in np.rint(corners[0]))
        off = np.abs(corners - ends - np.rint(corners[0])).max()
        inside = 0 <= plane < planes and 0 <= row <= labels.shape[1] - height and 0 <= column <= labels.shape[2] - width
        if off > OFF or not inside:
            raise UserError(
                f"{path} is placed by position alone, and its frame {number + 1} does not lie on the voxels of "
                f"{slices[0].parent.name}/{slices[0].name}: resample it"
            )
        region = labels[plane, row : row + height, column : column + width]
        values = frame.astype(np.int64) if segment is None else (frame > 0) * np.int64(segment)
        if ((region > 0) & (values > 0) & (region != values)).any():
            raise UserError(f"{path} has segments that overlap: give each a file or a label of its own")
        np.copyto(region, values, where=values > 0)
    return labels


def _frames(segmentation: "Dataset", path: Path) -> Iterator[tuple[Floats, int | None]]:
    """Of each frame what takes (0, row, column, 1) to mm, [4, 4], and its segment; None where its values are labels."""
    shared = _first(segmentation.get("SharedFunctionalGroupsSequence"))
    binary = segmentation.SegmentationType == "BINARY"
    for frame in segmentation.get("PerFrameFunctionalGroupsSequence") or ():
        position, orientation, measures, identity = (
            _first(frame.get(name) or shared.get(name))
            for name in (
                "PlanePositionSequence",
                "PlaneOrientationSequence",
                "PixelMeasuresSequence",
                "SegmentIdentificationSequence",
            )
        )
        placed = [position.get("ImagePositionPatient"), orientation.get("ImageOrientationPatient")]
        spacing, segment = measures.get("PixelSpacing"), identity.get("ReferencedSegmentNumber")
        if [len(one or ()) for one in (*placed, spacing)] != [3, 6, 2] or (binary and segment is None):
            raise UserError(f"{path} names no source image of its frames, and not their positions either")
        row, column = np.asarray(placed[1], dtype=np.float64).reshape(2, 3)
        place = np.asarray(placed[0], dtype=np.float64)
        yield (
            affine_in(row, column, [float(one) for one in spacing], np.cross(row, column), place),
            (int(segment) if binary else None),
        )


def _first(sequence: "Sequence[Dataset] | None") -> "Dataset":
    from pydicom import Dataset

    return sequence[0] if sequence else Dataset()
