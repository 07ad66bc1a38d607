"""Differences of stored values, and what else of a file its original needs."""

import gzip
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.dicom import quiet, read_dataset
from medveil.launch.data.formats.dicom_release import set_pixels
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.formats.windows import Values
from medveil.launch.data.images import write_picture

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

_MOST_BYTES = 4 << 30


def difference(original: Values, released: Values) -> bytes:
    """What turns ``released`` into ``original`` of the same type and shape: of integers original - released in as many
    bits, of floats the bits that differ. All low bytes come first, which compresses better than whole numbers.
    """
    before, after = _bits(original), _bits(released)
    changed = before ^ after if original.dtype.kind == "f" else before - after
    return changed.reshape(-1).view(np.uint8).reshape(-1, original.dtype.itemsize).T.tobytes()


def undone(released: Values, content: bytes) -> Values:
    """The original of ``released``. Raises ValueError where ``content`` is not of its size."""
    size = released.dtype.itemsize
    flat = np.frombuffer(content, np.uint8).reshape(size, released.size).T.copy().view(f"u{size}")
    after = _bits(released).reshape(-1)
    before = after ^ flat.reshape(-1) if released.dtype.kind == "f" else after + flat.reshape(-1)
    return before.view(released.dtype).reshape(released.shape)


def head_of(path: Path, kind: Kind) -> bytes:
    """All that the file holds besides its voxels: of NIfTI the bytes before them, of DICOM the attributes."""
    if kind == "nifti":
        content = _nifti_bytes(path)
        return content[: len(content) - formats.read(path, kind).values.nbytes]
    if kind == "dicom":
        dataset, buffer = read_dataset(path), io.BytesIO()
        with quiet(path):
            del dataset.PixelData
            dataset.save_as(buffer)
        return buffer.getvalue()
    return b""


def can_rebuild(path: Path, kind: Kind) -> bool:
    """Whether the file is no more than its head and the values that are read of it: nothing after the voxels of NIfTI;
    of DICOM no colours that were converted, and no attributes in another encoding than the file says or is written in.
    """
    if kind == "nifti":
        return _ends_with_voxels(path)
    if kind != "dicom":
        return True
    dataset = read_dataset(path, pixels=False)
    syntax = dataset.file_meta.TransferSyntaxUID
    as_named = dataset.original_encoding == (syntax.is_implicit_VR, syntax.is_little_endian)
    # pydicom guesses where a file is not as it says, and cannot write what it did not decode.
    raw = map(dataset.get_item, dataset.keys())
    as_named &= all(getattr(one, "is_implicit_VR", syntax.is_implicit_VR) == syntax.is_implicit_VR for one in raw)
    return as_named and syntax.is_little_endian and not str(dataset.PhotometricInterpretation).startswith("YBR")


def _ends_with_voxels(path: Path) -> bool:
    content = _nifti_bytes(path)
    header = _nifti_class(content).header_class.from_fileobj(io.BytesIO(content))
    return bool(header.get_data_offset() + formats.read(path, "nifti").values.nbytes == len(content))


def rebuild(target: Path, kind: Kind, head: bytes, values: Values) -> None:
    """Save ``values`` [P, H, W] (or [P, H, W, 3]) as ``target`` with the head of the original."""
    if kind == "nifti":
        _rebuild_nifti(target, head, values)
    elif kind == "dicom":
        _rebuild_dicom(target, head, values)
    elif kind == "sixteen" or target.suffix.lower() != ".png":
        write_picture(target, values[0])
    else:
        # These are to be worked on, not kept for long: speed before size. Runs alone are found fastest, and on
        # photographs, filtered, in fewer bytes than level 1 without this.
        Image.fromarray(values[0]).save(target, "PNG", compress_level=1, compress_type=zlib.Z_RLE)


def _bits(values: Values) -> Values:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _nifti_bytes(path: Path) -> bytes:
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path} has more than {_MOST_BYTES >> 30} GiB: such huge files are not read")
    return content


def _nifti_class(content: bytes) -> "type[Nifti1Image]":
    """What reads a file that begins with ``content``: NIfTI 2 says first that its header has 540 bytes."""
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image

    return Nifti2Image if 540 in (int.from_bytes(content[:4], order) for order in ("little", "big")) else Nifti1Image


def _rebuild_nifti(target: Path, head: bytes, values: Values) -> None:
    from medveil.launch.data.formats.nifti import plane_axis

    image_class = _nifti_class(head)
    header = image_class.header_class.from_fileobj(io.BytesIO(head))
    shape = header.get_data_shape()
    image = image_class(np.broadcast_to(np.uint8(0), shape), None, header)
    axis = plane_axis(image)
    array = np.moveaxis(values, 0, axis).reshape(shape).astype(header.get_data_dtype())
    content = head + array.tobytes(order="F")
    if target.name.lower().endswith(".gz"):
        with gzip.open(target, "wb", compresslevel=4) as file:
            file.write(content)
    else:
        target.write_bytes(content)


def _rebuild_dicom(target: Path, head: bytes, values: Values) -> None:
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian

    with quiet(target):
        dataset = dcmread(io.BytesIO(head))
        set_pixels(dataset, values)
        if values.ndim == 4:
            dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(target, implicit_vr=False, little_endian=True)
