"""NIfTI volumes: the stored numbers as they lie in the file, and a header that is copied, never made anew."""

import gzip
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats.stored import MAX_VOXELS, Stored
from medveil.launch.data.formats.windows import Floats, Scale, Values, scale_of

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.nifti1 import Nifti1Image

SUFFIXES = (".nii.gz", ".nii")

_FLAT = 1e-9
"""Cubic millimetres of a voxel that is none."""
_KINDS = ("uint8", "int8", "uint16", "int16", "float32", "float64")


def read(path: Path) -> Stored:
    """The volume of the file, its planes across the axis of the widest spacing (of equal ones the last).

    Raises :class:`UserError` for what cannot be read: damaged files, more than three dimensions, other number types,
    values that are no numbers, spacings of zero.
    """
    image = _load(path)
    axis = plane_axis(image)
    values = np.moveaxis(_array(image, path), axis, 0)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are no numbers: replace NaN and infinity first")
    limits = (-math.inf, math.inf) if values.dtype.kind == "f" else _range(values.dtype)
    zooms = _zooms(image)
    spacing = (*(zoom for i, zoom in enumerate(zooms) if i != axis), zooms[axis])
    return Stored(np.ascontiguousarray(values), _scale(image, path), limits, spacing=spacing)


def read_grid(path: Path) -> tuple[Values, Floats]:
    """The values of the file, rescaled, as it has them [X, Y, Z], and its affine to mm. Raises as :func:`read`, and
    for an affine without an inverse.
    """
    image = _load(path)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not abs(np.linalg.det(affine[:3, :3])) > _FLAT:
        raise UserError(f"{path} has an affine that lays voxels on one another: correct its header first")
    return _scale(image, path).values(_array(image, path)), affine


def write(path: Path, original: Path, values: Values) -> None:
    """Save ``values`` [P, H, W] as ``path``, with the header of ``original`` but for its extensions, all of its text,
    and the extreme values that it may tell.
    """
    image = _load(original)
    axis, scale = plane_axis(image), _scale(image, original)
    header = image.header.copy()
    header.extensions.clear()
    fields = header.template_dtype.fields
    assert fields is not None
    for name in (name for name, (kind, *_) in fields.items() if kind.char == "S" and name != "magic"):
        header[name] = b""
    for name in ("glmax", "glmin"):
        if name in fields:
            header[name] = 0
    shape = image.shape
    array = np.moveaxis(values, 0, axis).reshape(shape)
    out = type(image)(array.astype(image.get_data_dtype()), image.affine, header)
    out.header.set_data_dtype(image.get_data_dtype())
    # Without this a new slope is chosen and every stored number changes.
    out.header.set_slope_inter(scale.slope, scale.intercept)
    out.to_filename(path)


def plane_axis(image: "Nifti1Image") -> int:
    """Across which axis a volume is cut into planes."""
    zooms, shape = _zooms(image), _shape(image.shape)
    flat = [axis for axis in range(3) if shape[axis] == 1]
    return flat[-1] if flat else max(range(3), key=lambda axis: (round(zooms[axis], 3), axis))


def _load(path: Path) -> "Nifti1Image":
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    try:
        import nibabel
        from nibabel.nifti1 import Nifti1Image
    except ImportError:
        raise UserError(f"{path}: reading NIfTI needs nibabel: pip install 'medveil[medical]'") from None
    try:
        image = nibabel.load(path)
    except Exception as error:  # a parser's answer to damaged bytes may be any of dozens
        raise _unreadable(path, error) from None
    if not isinstance(image, Nifti1Image):
        raise UserError(f"{path} is a {type(image).__name__}, no NIfTI volume of one file: convert it to .nii.gz")
    shape = image.shape
    if len(shape) < 2 or any(side < 1 for side in shape) or any(side > 1 for side in shape[3:]):
        said = "x".join(map(str, shape))
        raise UserError(f"{path} has {len(shape)} dimensions ({said}): give one volume, of two or three, a file")
    if math.prod(shape) > MAX_VOXELS:
        raise UserError(f"{path} has {math.prod(shape):,} voxels: at most {MAX_VOXELS:,} are read")
    if image.get_data_dtype().name not in _KINDS:
        raise UserError(f"{path} stores {image.get_data_dtype().name}: {', '.join(_KINDS)} are read")
    _check_header(image, path)
    return image


def _check_header(image: "Nifti1Image", path: Path) -> None:
    """Refuse what nibabel mends without a word: spacings and slopes that are none."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        header = type(image.header).from_fileobj(file, check=False)
    zooms = [float(one) for one in header["pixdim"][1 : 1 + min(image.ndim, 3)]]
    if not all(0 < zoom < math.inf for zoom in zooms):
        said = "x".join(f"{zoom:g}" for zoom in zooms)
        raise UserError(f"{path} has a voxel spacing of {said}: correct its header first")
    if not np.isfinite(image.affine).all():
        raise UserError(f"{path} has an affine with values that are no numbers: correct its header first")
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isinf(slope) or math.isinf(inter):
        raise UserError(f"{path} has a slope of {slope:g} and an intercept of {inter:g}: correct its header first")


def _array(image: "Nifti1Image", path: Path) -> Values:
    try:
        proxy = _proxy(image)
        if path.name.lower().endswith(".gz"):
            array = _unpacked(path, proxy)
        else:
            array = np.asarray(proxy.get_unscaled())
    except Exception as error:
        raise _unreadable(path, error) from None
    return array.astype(array.dtype.newbyteorder("="), copy=False).reshape(_shape(image.shape))


def _unpacked(path: Path, proxy: "ArrayProxy") -> Values:
    """The stored numbers of a gzip file. It is read to its end, where its sums are: voxels alone stop before them."""
    from nibabel.volumeutils import array_from_file

    with gzip.open(path) as file:
        array: Values = array_from_file(proxy.shape, proxy.dtype, file, proxy.offset, order="F", mmap=False)
        while file.read(1 << 20):
            pass
    return array


def _proxy(image: "Nifti1Image") -> "ArrayProxy":
    """What reads the file when asked, and knows its scaling."""
    from nibabel.arrayproxy import ArrayProxy

    assert isinstance(image.dataobj, ArrayProxy)
    return image.dataobj


def _unreadable(path: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:160]
    return UserError(f"{path} cannot be read as NIfTI ({said or type(error).__name__}): replace or remove it")


def _shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (*shape, 1, 1)[:3]  # type: ignore[return-value]  # two or three sides, and ones


def _zooms(image: "Nifti1Image") -> tuple[float, ...]:
    zooms = tuple(float(zoom) for zoom in image.header.get_zooms()[:3])
    return (*zooms, 1.0)[:3]


def _scale(image: "Nifti1Image", path: Path) -> Scale:
    return scale_of(_proxy(image).slope, _proxy(image).inter, path)


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)
