"""One file of any format that is not plain 8-bit pictures: read as it is stored, and written again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data.formats import dicom, dicom_release, geometry, nifti, segmentation, series, sixteen
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import EIGHT_BITS, Values
from medveil.launch.data.images import UNREADABLE, read_image, write_picture
from medveil.launch.data.layout import SUFFIXES
from medveil.launch.reading import open_regular

Kind = Literal["dicom", "nifti", "picture", "sixteen"]

JPEG = frozenset({".jpg", ".jpeg"})
MOST_LABELS = 65535


def stem_of(path: Path) -> str:
    """The name without its suffix, which for NIfTI may be double."""
    name = path.name
    suffix = suffix_of(path)
    return name[: len(name) - len(suffix)] if suffix else name


def suffix_of(path: Path) -> str:
    """``.nii.gz`` for that, else the last suffix."""
    return next((one for one in nifti.SUFFIXES if path.name.lower().endswith(one)), path.suffix)


def kind_of(path: Path) -> Kind | None:
    """The format of the file at ``path`` by its name, or by its first bytes where it has no known suffix."""
    suffix = suffix_of(path).lower()
    if suffix in nifti.SUFFIXES:
        return "nifti"
    if suffix in SUFFIXES:
        return "sixteen" if _is_sixteen(path) else "picture"
    if suffix in dicom.SUFFIXES or _begins_as_dicom(path):
        return "dicom"
    return None


def read(path: Path, kind: Kind, slices: Sequence[Path] = (), *, identified: bool = False) -> Stored:
    """The image as it is stored; of a DICOM series in the folder ``path`` its ``slices``.

    ``identified`` as in :func:`medveil.launch.data.formats.dicom.read`.
    """
    if slices:
        return series.read(slices, identified=identified)
    if kind == "dicom":
        return dicom.read(path, identified=identified)
    if kind == "nifti":
        return nifti.read(path)
    return sixteen.read(path) if kind == "sixteen" else Stored(read_image(path).pixels[None], windows=EIGHT_BITS)


def read_labels(path: Path, image: Sequence[Path], shape: Sequence[int]) -> Values:
    """The label map at ``path``, whole numbers [P, H, W], 0 for background, on the image of ``shape`` whose file, or
    slices, are ``image``.

    Raises :class:`UserError` for others: coloured, with fractions, of another size or place.
    """
    kind = kind_of(path)
    if kind is None:
        raise UserError(f"{path} is no DICOM segmentation, NIfTI or picture: give the mask of a medical image as one")
    if kind == "dicom":
        return segmentation.read(path, image)
    if kind == "nifti" and kind_of(image[0]) == "dicom":
        values, affine = nifti.read_grid(path)
        values = geometry.laid_on(values, affine, image, shape, path)
    else:
        if kind == "picture" and path.suffix.lower() in JPEG:
            raise UserError(f"{path} is a JPEG, which blurs masks: save a PNG")
        stored = read(path, kind)
        if stored.values.ndim == 4:
            raise UserError(f"{path} is coloured: a mask is grey, 0 for background")
        values = stored.scale.values(stored.values)
    # NaN is not between them, and fails too.
    if not (values.min() >= 0 and values.max() <= MOST_LABELS) or (np.rint(values) != values).any():
        raise UserError(f"{path} has values that are no labels: whole numbers from 0 are needed")
    whole = values.astype(np.int64)
    if whole.shape != tuple(shape):
        sides = "x".join(map(str, whole.shape))
        raise UserError(f"{path} is {sides} and its image {'x'.join(map(str, shape))}: give equal ones")
    return whole


def write_labels(path: Path, original: Path, identity: dicom_release.Identity) -> None:
    """Save the label map ``original`` as ``path``, without what a release leaves out."""
    kind = kind_of(original)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "dicom":
        segmentation.write(path, original, identity)
    elif kind is not None:
        values = read(original, kind).values
        write(path, kind, original, values, identity)


def write(path: Path, kind: Kind, original: Path, values: Values, identity: dicom_release.Identity) -> None:
    """Save ``values`` as ``path``, in all else as ``original`` but for what a release leaves out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "dicom":
        dicom_release.write(path, original, values, identity)
    elif kind == "nifti":
        nifti.write(path, original, values)
    else:
        write_picture(path, values[0])


def _is_sixteen(path: Path) -> bool:
    """A picture whose values do not fit 8 bits; whatever else is wrong with it, reading it says."""
    try:
        # A pipe of that name would otherwise be waited for.
        with open_regular(path) as file, Image.open(file) as image:
            return sixteen.is_sixteen(image)
    except (UserError, *UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def _begins_as_dicom(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(132)[128:] == b"DICM"
    except (UserError, OSError):
        return False
