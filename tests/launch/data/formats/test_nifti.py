"""Real NIfTI files: stored numbers, slope and geometry survive; free text does not; damage is one line."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medveil.errors import UserError
from medveil.launch.data.formats import nifti
from medveil.launch.data.formats.windows import TOLERANCE, change_in_levels, percentile_window
from tests.launch.data.formats.real import nibabel_file

nib = pytest.importorskip("nibabel")

LEVELS = 4


def one_volume(tmp_path: Path) -> Path:
    """The first of the volumes of nibabel's functional.nii: int16, slope 0.0754, intercept 3100.76."""
    image = nib.load(nibabel_file("functional.nii"))
    raw, header = image.dataobj.get_unscaled()[..., 0], image.header.copy()
    header["descrip"] = b"scan of Jane Doe"
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"St. Elsewhere"))
    out = nib.Nifti1Image(raw, image.affine, header)
    out.header.set_slope_inter(image.dataobj.slope, image.dataobj.inter)
    out.to_filename(tmp_path / "one.nii.gz")
    return tmp_path / "one.nii.gz"


@pytest.mark.parametrize("name", ["one volume", "anatomical.nii", "standard.nii.gz", "reoriented_anat_moved.nii"])
def test_stored_numbers_slope_and_geometry_survive(name: str, tmp_path: Path) -> None:
    path = one_volume(tmp_path) if name == "one volume" else nibabel_file(name)
    stored = nifti.read(path)
    window = percentile_window([stored.image_values()], stored.scale)
    assert window is not None
    signs = np.random.default_rng(0).choice([-LEVELS, LEVELS], stored.values.shape).astype(np.float32)
    values = np.stack([stored.changed(i, signs[i], (window,), LEVELS) for i in range(stored.planes)])
    out = tmp_path / f"out{''.join(path.suffixes)}"
    nifti.write(out, path, values)
    saved = nifti.read(out)
    assert np.array_equal(saved.values, values)
    assert saved.values.dtype == stored.values.dtype
    assert (saved.scale, saved.spacing) == (stored.scale, stored.spacing)
    change = change_in_levels(stored.values, saved.values, stored.scale, (window,))
    assert 0.5 < change.max() <= LEVELS + TOLERANCE
    old, new = nib.load(path), nib.load(out)
    assert np.array_equal(old.affine, new.affine)
    assert new.get_data_dtype() == old.get_data_dtype()  # the byte order too
    for field in ("qform_code", "sform_code", "pixdim", "xyzt_units", "scl_slope", "scl_inter"):
        assert np.array_equal(old.header[field], new.header[field], equal_nan=True), field
    sitk = pytest.importorskip("SimpleITK")
    if name != "one volume" or old.ndim == 3:
        read = sitk.GetArrayFromImage(sitk.ReadImage(str(out))).T
        assert np.allclose(read.reshape(new.shape), new.get_fdata(), rtol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_all_text_and_extensions_are_dropped(version: int, tmp_path: Path) -> None:
    fields = ["descrip", "aux_file", "intent_name", *(["data_type", "db_name"] if version == 1 else ["unused_str"])]
    image = (nib.Nifti1Image if version == 1 else nib.Nifti2Image)(np.zeros((4, 5, 6), np.int16), np.eye(4))
    for name in fields:
        image.header[name] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    image.to_filename(tmp_path / "in.nii")
    nifti.write(tmp_path / "out.nii", tmp_path / "in.nii", nifti.read(tmp_path / "in.nii").values)
    assert (tmp_path / "in.nii").read_bytes().count(b"Jane Doe") == len(fields) + 1
    assert b"Jane" not in (tmp_path / "out.nii").read_bytes()


def test_a_packed_file_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.nii.gz"
    nib.Nifti1Image(np.zeros((200, 200, 50), np.int16), np.eye(4)).to_filename(path)
    unpacked = []
    read = gzip.GzipFile.read

    def counted(file: gzip.GzipFile, *size: int) -> bytes:
        content = read(file, *size)
        unpacked.append(len(content))
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    nifti.read(path)
    assert sum(unpacked) < 1.1 * 200 * 200 * 50 * 2


def test_planes_lie_across_the_widest_spacing(tmp_path: Path) -> None:
    for zooms, axis in (((3, 1, 1), 0), ((1, 1, 5), 2), ((1, 1, 1), 2)):
        image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([*zooms, 1]))
        image.to_filename(tmp_path / "x.nii")
        stored = nifti.read(tmp_path / "x.nii")
        assert stored.planes == (4, 5, 6)[axis]
        assert stored.spacing[-1] == zooms[axis]
    flat = nib.Nifti1Image(np.zeros((7, 1, 6), np.int16), np.diag([1, 1, 9, 1]))
    flat.to_filename(tmp_path / "flat.nii")
    assert nifti.read(tmp_path / "flat.nii").values.shape == (1, 7, 6)


def patched(offset: int, form: str, value: float) -> Callable[[bytes], bytes]:
    def patch(content: bytes) -> bytes:
        changed = bytearray(content)
        struct.pack_into(form, changed, offset, value)
        return bytes(changed)

    return patch


GOOD = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
NAN = np.where(np.arange(120).reshape(4, 5, 6) == 7, np.nan, 1).astype(np.float32)
MALFORMED: dict[str, tuple[np.ndarray, Callable[[bytes], bytes], str]] = {
    "empty": (GOOD, lambda _: b"", "cannot be read as NIfTI"),
    "text": (GOOD, lambda _: b"hello" * 200, "cannot be read as NIfTI"),
    "cut in the header": (GOOD, lambda content: content[:100], "cannot be read as NIfTI"),
    "cut in the voxels": (GOOD, lambda content: content[:-9], "cannot be read as NIfTI"),
    "NaN": (NAN, lambda content: content, "values that are no numbers"),
    "infinite": (NAN * np.inf, lambda content: content, "values that are no numbers"),
    "complex": (GOOD.astype(np.complex64), lambda content: content, "stores complex64"),
    "RGB": (np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), lambda content: content, "stores"),
    "64-bit integers": (GOOD.astype(np.int32), patched(70, "<h", 1024), "cannot be read|stores int64"),
    "32-bit integers": (GOOD.astype(np.int32), lambda content: content, "stores int32"),
    "four dimensions": (np.zeros((3, 3, 3, 2), np.int16), lambda content: content, "4 dimensions"),
    "no voxels": (GOOD, patched(42, "<h", 0), "dimensions|cannot be read"),
    "negative sides": (GOOD, patched(42, "<h", -4), "dimensions|cannot be read"),
    "huge": (GOOD, patched(42, "<h", 32767), "cannot be read|voxels"),
    "dimensions beyond seven": (GOOD, patched(40, "<h", 12), "cannot be read"),
    "zero spacing": (GOOD, patched(80, "<f", 0.0), "voxel spacing of 0x"),
    "NaN spacing": (GOOD, patched(84, "<f", float("nan")), "voxel spacing"),
    "a data type of nobody": (GOOD, patched(70, "<h", 777), "cannot be read as NIfTI"),
    "voxels before the header": (GOOD, patched(108, "<f", 3.0), "cannot be read as NIfTI|dimensions"),
    "an affine of NaN": (GOOD, patched(292, "<f", float("nan")), "affine with values that are no numbers"),
    "infinite slope": (GOOD, patched(112, "<f", float("inf")), "cannot be read|slope"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_cannot_be_read_is_one_line_that_names_the_file(case: str, tmp_path: Path) -> None:
    array, damage, said = MALFORMED[case]
    path = tmp_path / "odd.nii"
    path.write_bytes(damage(nib.Nifti1Image(array, np.eye(4), dtype=array.dtype).to_bytes()))
    with pytest.raises(UserError, match=said) as caught:
        nifti.read(path)
    assert "odd.nii" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_of_files_and_a_damaged_gzip_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Nifti1Pair"):
        nifti.read(nibabel_file("nifti1.hdr"))
    content = nibabel_file("standard.nii.gz").read_bytes()
    (tmp_path / "odd.nii.gz").write_bytes(content[:200] + b"xx" + content[202:])
    with pytest.raises(UserError, match=r"odd\.nii\.gz cannot be read"):
        nifti.read(tmp_path / "odd.nii.gz")
