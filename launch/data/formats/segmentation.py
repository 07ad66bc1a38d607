"""DICOM segmentations (SEG) as label maps: the number of each pixel's segment. Read by highdicom."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats.dicom import quiet, read_dataset
from medveil.launch.data.formats.dicom_release import Identity, released
from medveil.launch.data.formats.placed import laid_by_position, tells_sources
from medveil.launch.data.formats.windows import Values

_WHAT = "a DICOM segmentation"


def read(path: Path, slices: Sequence[Path]) -> Values:
    """The segments' numbers on the image of ``slices`` (a file for each, or one of several frames), int64 [P, H, W].

    Frames that do not all name their slice, or are no copy of its pixels' places, are laid on the image by position.
    Raises :class:`UserError` for what is no segmentation into regions that do not overlap, and for one of other images.
    """
    headers = [read_dataset(one, pixels=False) for one in slices]
    uids = [str(header.SOPInstanceUID) for header in headers]
    with quiet(path, _WHAT):
        import highdicom

        if read_dataset(path, pixels=False).get("Modality") != "SEG":
            raise UserError(f"{path} is no DICOM segmentation: a mask is SEG, NIfTI or a picture")
        found = highdicom.seg.segread(path)
        if found.SegmentationType == "FRACTIONAL":
            raise UserError(f"{path} holds fractions: give a segmentation of type BINARY or LABELMAP")
        known = {str(instance) for _, _, instance in found.get_source_image_uids()}
        by_position = not tells_sources(found)
        if known.isdisjoint(uids) and (known or not by_position):
            raise UserError(f"{path} is of other images than {slices[0]}: it refers to none of its instances")
        if by_position:
            return laid_by_position(found, path, slices)
        frames = int(headers[0].get("NumberOfFrames") or 1)
        if frames == 1:
            labels = found.get_pixels_by_source_instance(
                uids, combine_segments=True, assert_missing_frames_are_empty=True
            )
        else:
            labels = found.get_pixels_by_source_frame(
                uids[0], range(1, frames + 1), combine_segments=True, assert_missing_frames_are_empty=True
            )
    return labels.astype(np.int64)


def write(path: Path, original: Path, identity: Identity) -> None:
    """Save ``original`` as ``path`` with its pixels as they are, and with the identifiers and attributes of a release.

    Its references follow the released images.
    """
    before = read_dataset(original)
    dataset = released(before, identity)
    with quiet(path, _WHAT):
        dataset.file_meta.TransferSyntaxUID = before.file_meta.TransferSyntaxUID
        dataset["PixelData"] = before["PixelData"]
        dataset.save_as(path, enforce_file_format=True)
