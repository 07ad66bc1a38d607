"""DICOM images, read as they are stored; what would not survive a release is refused by name."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medveil.errors import UserError
from medveil.launch.data.formats.attributes import decode
from medveil.launch.data.formats.stored import MAX_VOXELS, Stored
from medveil.launch.data.formats.windows import BRAIN, CT, Scale, Values, Window, scale_of
from medveil.launch.errors import FULL
from medveil.launch.reading import open_regular

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

_GREY = ("MONOCHROME1", "MONOCHROME2")
_SLICES = ("CT", "MR", "PT", "NM")
_HEADS = ("HEAD", "BRAIN", "SKULL")
_DECODERS = {
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}
"""What reads the transfer syntaxes that Pillow and pydicom alone do not."""


@contextmanager
def quiet(path: Path, what: str = "a DICOM file") -> Iterator[None]:
    """Whatever pydicom raises on the bytes of ``path`` becomes one line, and its warnings nothing."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, MemoryError):
        raise
    except ImportError:
        raise UserError(f"{path}: reading {what} needs pydicom: pip install 'medveil[medical]'") from None
    except Exception as error:  # a parser's answer to damaged bytes may be any of dozens
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        # pydicom puts a traceback into some of its messages.
        said = " ".join(str(error).partition("Traceback")[0].split())[:160]
        raise UserError(
            f"{path} cannot be read as {what} ({said or type(error).__name__}): replace or remove it"
        ) from None


def read_dataset(path: Path, *, pixels: bool = True) -> "Dataset":
    """The attributes of the file, with its pixels still encoded. Raises :class:`UserError`."""
    with quiet(path):
        from pydicom import dcmread

        # A pipe would otherwise be waited for; what is opened by its number has no name for pydicom's warnings.
        open_regular(path).close()
        dataset = dcmread(path, stop_before_pixels=not pixels)
        if not dataset.get("SOPClassUID") or not dataset.get("SOPInstanceUID"):
            raise UserError(f"{path} has no SOP class or instance UID: it is no DICOM image, or is damaged")
        for name in ("SeriesInstanceUID", "StudyInstanceUID"):
            if not dataset.get(name):
                raise UserError(f"{path} has no {name}: it is no DICOM image, or is damaged")
        decode(dataset)
        return dataset


def read(path: Path, *, identified: bool = False) -> Stored:
    """The image of the file: P frames, grey or RGB, of 8 or 16 bits.

    ``identified``: read it even if it does not say that the patient's identity was removed. Raises :class:`UserError`
    for what cannot be read or released: other objects, palettes, modality tables, burned-in text, other depths, frames
    of different rescale.
    """
    dataset = read_dataset(path)
    with quiet(path):
        _check(dataset, path, identified)
        scale, windows = _scale(dataset, path), _windows(dataset, path)
        values = _decoded(dataset, path)
    bits = int(dataset.BitsStored)
    limits = (-(1 << bits - 1), (1 << bits - 1) - 1) if values.dtype.kind == "i" else (0, (1 << bits) - 1)
    if values.ndim == 4 or (bits == 8 and not windows):
        windows = (Window(f"{bits} bits", 0, limits[1]),)
    void = _void(dataset, values)
    return Stored(
        values=values,
        scale=scale,
        limits=limits,
        padding=None if void is None or not (padding := _within(values, void)).any() else padding,
        windows=windows,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        spacing=spacing_of(dataset, path),
        voids=() if void is None else (void,),
    )


def _check(dataset: "Dataset", path: Path, identified: bool) -> None:
    """Refuse what a release could not keep or must not show."""
    modality = str(dataset.get("Modality", "of no modality"))
    if "PixelData" not in dataset:
        kind = (
            "floating-point pixels" if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset else "no image"
        )
        raise UserError(f"{path} ({modality}) holds {kind}: take it out")
    if modality in ("SEG", "RTDOSE"):
        raise UserError(f"{path} is of modality {modality}, no image to protect: masks belong in masks/")
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        raise UserError(f"{path} is of PALETTE COLOR: convert it to RGB or grey first")
    if photometric not in _GREY and not photometric.startswith(("RGB", "YBR")):
        raise UserError(f"{path} has photometric interpretation {photometric or 'none'}: grey, RGB and YBR are read")
    if "ModalityLUTSequence" in dataset:
        raise UserError(f"{path} has a modality lookup table: apply it first, so that values are linear")
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        raise UserError(f"{path} has burned-in annotation, which may name the patient: remove it first")
    if str(dataset.get("PatientIdentityRemoved", "")).upper() != "YES" and not identified:
        raise UserError(
            f"{path} does not say that the patient's identity was removed: de-identify it (CTP, dicognito, "
            "deid), or give --identified"
        )
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation")
    missing = [name for name in needed if dataset.get(name) is None]
    if missing:
        raise UserError(f"{path} has no {missing[0]}: it is damaged; export it again")
    colour = photometric not in _GREY
    if dataset.SamplesPerPixel != (3 if colour else 1):
        raise UserError(f"{path} is {photometric} of {dataset.SamplesPerPixel} samples a pixel: export it again")
    if dataset.BitsAllocated not in (8, 16) or not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        stored = f"{dataset.BitsStored} of {dataset.BitsAllocated}"
        raise UserError(f"{path} stores {stored} bits a sample: 8 and 16 are read")
    if dataset.HighBit != dataset.BitsStored - 1:
        raise UserError(f"{path} has its high bit at {dataset.HighBit} of {dataset.BitsStored}: export it again")
    frames = int(dataset.get("NumberOfFrames") or 1)
    count = frames * dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
    if not 0 < count <= MAX_VOXELS:
        raise UserError(f"{path} has {count:,} values: at most {MAX_VOXELS:,} are read")
    described = len(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if described not in (0, frames):
        raise UserError(f"{path} has {frames} frames and describes {described}: it is damaged; export it again")


def _decoded(dataset: "Dataset", path: Path) -> Values:
    """[P, H, W] or [P, H, W, 3]; YBR becomes RGB."""
    from pydicom.pixels.utils import pixel_array

    try:
        array = pixel_array(dataset)
    except (RuntimeError, NotImplementedError) as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        if "missing dependencies" not in str(error):
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{path}: {syntax.name} does not decode ({reason}): decompress or replace it") from None
        package = _DECODERS.get(str(syntax), "python-gdcm")
        raise UserError(f"{path}: {syntax.name} is read with another package: pip install {package}") from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    colour = int(dataset.SamplesPerPixel) == 3
    return np.ascontiguousarray(array if array.ndim == (4 if colour else 3) else array[None])


def _scale(dataset: "Dataset", path: Path) -> Scale:
    """The one rescale of all frames."""
    found = {_rescale(group, path) for group in groups(dataset, "PixelValueTransformationSequence")}
    if len(found) > 1:
        raise UserError(f"{path} has frames of {len(found)} different rescale slopes or intercepts: split it by these")
    return found.pop() if found else _rescale(dataset, path)


def _rescale(group: "Dataset", path: Path) -> Scale:
    slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
    if (slope is None) != (intercept is None):
        missing = "slope" if slope is None else "intercept"
        raise UserError(f"{path} has half a rescale, no {missing}: export it again")
    return Scale() if slope is None else scale_of(slope, intercept, path)


def groups(dataset: "Dataset", keyword: str) -> Iterator["Dataset"]:
    """The items of a functional group, shared or per frame."""
    for outer in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for frame in dataset.get(outer) or ():
            yield from frame.get(keyword) or ()


def _windows(dataset: "Dataset", path: Path) -> tuple[Window, ...]:
    """What to look at it under: the windows of all CT, else the file's own, if they are of all frames; else none."""
    if dataset.get("Modality") == "CT" and dataset.get("SamplesPerPixel") == 1 and _hounsfield(dataset):
        head = any(part in str(dataset.get("BodyPartExamined", "")).upper() for part in _HEADS)
        return (*CT, BRAIN) if head else CT
    try:
        own = [_voi(group) for group in groups(dataset, "FrameVOILUTSequence")] or [_voi(dataset)]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return own[0] if all(one == own[0] for one in own) else ()


def _hounsfield(dataset: "Dataset") -> bool:
    rescaled = "RescaleSlope" in dataset or any(True for _ in groups(dataset, "PixelValueTransformationSequence"))
    return rescaled and str(dataset.get("RescaleType", "HU")) in ("HU", "")


def _voi(group: "Dataset") -> tuple[Window, ...]:
    centres, widths = (_numbers(group.get(name)) for name in ("WindowCenter", "WindowWidth"))
    pairs = dict.fromkeys((w, c) for w, c in zip(widths, centres, strict=False) if w > 0)
    return tuple(Window.centred(f"VOI {width:g}/{centre:g}", width, centre) for width, centre in pairs)


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return (
        [float(one) for one in value] if hasattr(value, "__iter__") and not isinstance(value, str) else [float(value)]
    )


def _void(dataset: "Dataset", values: Values) -> tuple[int, int] | None:
    """The lowest and highest number that is padding, whether there is some or not."""
    low = dataset.get("PixelPaddingValue")
    if low is None or values.ndim == 4:
        return None
    high = dataset.get("PixelPaddingRangeLimit", low)
    low, high = sorted(_as_stored(one, values.dtype) for one in (low, high))
    return low, high


def _within(values: Values, void: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return (values >= void[0]) & (values <= void[1])


def _as_stored(value: int | bytes, dtype: np.dtype[Any]) -> int:
    """Writers disagree whether padding is signed: the same 16 bits are meant."""
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    return int(np.array(number & 0xFFFF, np.uint16).astype(dtype)) if dtype.itemsize == 2 else number


def spacing_of(dataset: "Dataset", path: Path) -> tuple[float, ...]:
    """Of rows and columns in mm; () where the file does not tell. Raises :class:`UserError` for zeros."""
    places = [dataset, *groups(dataset, "PixelMeasuresSequence")]
    found = next((group.PixelSpacing for group in places if group.get("PixelSpacing")), None)
    if found is None:
        return ()
    spacing = tuple(_numbers(found))
    if len(spacing) != 2 or not all(0 < one < np.inf for one in spacing):
        if dataset.get("Modality") not in _SLICES:  # writers of projections fill it in with zeros
            return ()
        raise UserError(f"{path} has a pixel spacing of {'x'.join(f'{one:g}' for one in spacing)}: export it again")
    return spacing
