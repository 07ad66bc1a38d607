"""DICOM series as volumes, with segmentations or NIfTI label maps as masks."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medveil.errors import UserError
from medveil.launch.cli import main
from medveil.launch.data import Source, open_data
from medveil.launch.data.formats import dicom
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.dicom_release import Identity
from medveil.launch.data.formats.windows import CT, change_in_levels
from tests.launch.data.formats.real import dicom_file
from tests.launch.releases import both_manifests

nib = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

LEVELS = 4
PLANES = 5
NAMES = [f"IM{7 * i % PLANES}" for i in range(PLANES)]
"""Of the slices from the lowest position on: not in the order of their names."""


def labels() -> np.ndarray:
    """Two regions on the middle slices, which touch the border of the image on one side."""
    found = np.zeros((PLANES, 32, 32), np.uint8)
    found[1:4, 4:20, :9] = 1
    found[2:4, 22:30, 12:25] = 2
    return found


def save_series(folder: Path) -> list["pydicom.Dataset"]:
    folder.mkdir(parents=True)
    datasets = []
    for plane, name in enumerate(NAMES):
        dataset = pydicom.dcmread(dicom_file("CT_small.dcm"))
        pixels = dataset.pixel_array[40:72, 40:72] + plane
        dataset.Rows = dataset.Columns = 32
        dataset.PixelData = pixels.astype("<i2").tobytes()
        dataset.ImagePositionPatient = [-10.0, 5.0, -100.0 + 2.5 * plane]
        dataset.PatientIdentityRemoved, dataset.PatientName = "YES", "Doe^Jane"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{plane}"
        dataset.save_as(folder / f"{name}.dcm")
        datasets.append(dataset)
    return datasets


def save_segmentation(
    path: Path, datasets: list["pydicom.Dataset"], regions: Any, count: int, kind: str = "BINARY"
) -> None:
    organ = pydicom.sr.codedict.codes.SCT.Organ
    numbers = range(1, count + 1)
    segments = [
        highdicom.seg.SegmentDescription(number, f"part {number}", organ, organ, "MANUAL") for number in numbers
    ]
    who = {"manufacturer": "m", "manufacturer_model_name": "m", "software_versions": "1", "device_serial_number": "1"}
    uids = {"series_instance_uid": "1.2.4", "sop_instance_uid": "1.2.4.1"}
    path.parent.mkdir(parents=True, exist_ok=True)
    highdicom.seg.Segmentation(
        datasets, regions, kind, segments, series_number=9, instance_number=1, **uids, **who
    ).save_as(path)


def save_label_map(path: Path) -> None:
    """As NIfTI has it: the first axis to the right, the second to the front; DICOM goes to the left and to the back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spacing = 0.661468
    array = labels().transpose(2, 1, 0)[::-1, ::-1]
    affine = np.diag([spacing, spacing, 2.5, 1.0])
    affine[:3, 3] = [10 - 31 * spacing, -5 - 31 * spacing, -100.0]
    nib.Nifti1Image(array, affine).to_filename(path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scans"
    save_segmentation(folder / "masks" / "a.dcm", save_series(folder / "images" / "a"), labels(), 2)
    save_series(folder / "images" / "b")
    # What a medium's export leaves in a folder is no slice.
    (folder / "images" / "b" / "dicomdir").write_bytes(bytes(128) + b"DICM")
    save_label_map(folder / "masks" / "b.nii.gz")
    return folder


def targets(source: Source) -> np.ndarray:
    found: np.ndarray = source.data.read(range(len(source.data))).targets[:, 0].numpy()
    return found


def test_slices_are_in_the_order_of_their_positions(scans: Path) -> None:
    source = open_data(str(scans), skip_bad=False)
    assert list(source.data.ids) == [f"{name}/{plane:04d}" for name in "ab" for plane in range(PLANES)]
    assert [path.stem for path in source.files[0].slices] == NAMES
    assert np.array_equal(targets(source), np.concatenate([labels() > 0] * 2))


def test_a_release_of_series_opens_as_one(
    scans: Path, tmp_path: Path, raw_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    out, key = tmp_path / "out", ["--key", str(tmp_path / "key"), "--key-from", raw_key]
    settings = ["--method", "random", "--eps", f"{LEVELS}/255", "--device", "cpu", "--seed", "1"]
    assert main(["protect", str(scans), "--out", str(out), *key, *settings]) == 0
    # The segmentation is in the key whole, and larger than all differences.
    assert "times the entropy" not in capsys.readouterr().out
    source = open_data(str(out))
    assert np.array_equal(targets(source), targets(open_data(str(scans))))
    for plane, name in enumerate(NAMES):
        before = dicom.read(scans / "images" / "a" / f"{name}.dcm")
        after = dicom.read(out / "images" / "a" / f"{plane:04d}.dcm")
        change = change_in_levels(before.values, after.values, before.scale, CT)
        assert change.max() <= LEVELS
        assert ((change > 0).any(0) <= (labels()[plane] > 0)).all() or plane in (1, 2, 3)
        assert (change > 2).any() == (plane in (1, 2, 3))
    segmentation = highdicom.seg.segread(out / "masks" / "a.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in sorted((out / "images" / "a").iterdir())]
    again = segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(again, labels())
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not any(text in everything for text in (b"Doe", b"1.2.3.0", b"1.2.4.1"))
    assert {sample["file"] for sample in both_manifests(out)["samples"] if sample["id"] == "a/0001"} == {
        "images/a/0001.dcm"
    }
    assert main(["restore", str(out), *key, "--out", str(tmp_path / "back")]) == 0
    for path in scans.rglob("*.dcm"):
        assert pydicom.dcmread(tmp_path / "back" / path.relative_to(scans)) == pydicom.dcmread(path)


def test_a_segmentation_of_the_frames_of_one_file(tmp_path: Path) -> None:
    image = dicom_file("eCT_Supplemental.dcm")
    stored = dicom.read(image, identified=True)
    regions = np.zeros(stored.values.shape, np.uint8)
    regions[1, 10:20, 30:50] = 1
    save_segmentation(tmp_path / "mask.dcm", [pydicom.dcmread(image)], regions, 1)
    assert np.array_equal(formats.read_labels(tmp_path / "mask.dcm", (image,), regions.shape), regions)
    identity = Identity(bytes(32))
    formats.write(tmp_path / "released.dcm", "dicom", image, stored.values, identity)
    formats.write_labels(tmp_path / "released_mask.dcm", tmp_path / "mask.dcm", identity)
    released = formats.read_labels(tmp_path / "released_mask.dcm", (tmp_path / "released.dcm",), regions.shape)
    assert np.array_equal(released, regions)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("cropped", [False, True], ids=["whole", "cropped"])
def test_a_segmentation_that_is_placed_by_position(kind: str, cropped: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    datasets = save_series(data / "images" / "a")
    place = highdicom.get_volume_from_series(datasets).affine
    placed = highdicom.Volume(labels()[::-1], place, "PATIENT", frame_of_reference_uid=datasets[0].FrameOfReferenceUID)
    # highdicom counts the planes of this series from above; its volume without margins says that it is no copy.
    regions = placed[:, 2:32, :28] if cropped else placed
    path = data / "masks" / "a.dcm"
    save_segmentation(path, datasets, regions, 2, kind)
    if not cropped:
        forget_sources(path)
    source = open_data(str(data))
    assert np.array_equal(source.label_maps.read(range(PLANES)).targets[:, 0].numpy(), labels())
    out = ["--out", str(tmp_path / "out"), "--method", "random", "--device", "cpu", "--seed", "1"]
    if cropped and kind == "BINARY":
        assert main(["protect", str(data), *out]) == 0
        again = open_data(str(tmp_path / "out")).label_maps
        assert np.array_equal(again.read(range(PLANES)).targets[:, 0].numpy(), labels())


def forget_sources(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    dataset.save_as(path)


def frame_of(change: Callable[["pydicom.Dataset"], None]) -> Callable[[Path], None]:
    """A segmentation without sources, of which a frame is changed."""

    def damage(root: Path) -> None:
        path = root / "masks" / "a.dcm"
        forget_sources(path)
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)

    return damage


def edited(name: str | None, change: Callable[["pydicom.Dataset"], object]) -> Callable[[Path], None]:
    """The slice ``name`` of a series, or all of them."""

    def damage(root: Path) -> None:
        for path in (root / "images" / "a").glob(f"{name or '*'}.dcm"):
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path)

    return damage


def patched(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def flat_label_map(root: Path) -> None:
    image = nib.Nifti1Image(np.ones((32, 32, PLANES), np.uint8), np.eye(4))
    content = image.to_bytes()
    (root / "masks" / "b.nii.gz").write_bytes(gzip.compress(content[:312] + bytes(16) + content[328:]))


def overlapping(root: Path) -> None:
    datasets = [pydicom.dcmread(root / "images" / "a" / f"{name}.dcm") for name in NAMES]
    twice = np.repeat((labels() == 1)[..., None], 2, axis=-1)
    save_segmentation(root / "masks" / "a.dcm", datasets, twice, 2)
    forget_sources(root / "masks" / "a.dcm")


def moved(segmentation: "pydicom.Dataset", position: list[float]) -> None:
    segmentation.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = position


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a slice is missing": (lambda root: (root / "images" / "a" / f"{NAMES[2]}.dcm").unlink(), "a slice is missing"),
    "two of one position": (
        edited(NAMES[2], lambda one: setattr(one, "ImagePositionPatient", [-10.0, 5.0, -97.5])),
        "the same position",
    ),
    "two of one instance UID": (
        edited(NAMES[2], lambda one: setattr(one, "SOPInstanceUID", "1.2.3.0")),
        "has the SOPInstanceUID of",
    ),
    "another series": (
        edited(NAMES[2], lambda one: setattr(one, "SeriesInstanceUID", "1.2.9")),
        "another SeriesInstanceUID",
    ),
    "another slope": (edited(NAMES[2], lambda one: setattr(one, "RescaleSlope", "2")), "another RescaleSlope"),
    "another orientation": (
        edited(NAMES[2], lambda one: setattr(one, "ImageOrientationPatient", [0, 1, 0, 0, 0, 1])),
        "another ImageOrientationPatient",
    ),
    "no position": (edited(NAMES[2], lambda one: delattr(one, "ImagePositionPatient")), "does not tell the position"),
    "a position of words": (
        lambda root: patched(root / "images" / "a" / f"{NAMES[2]}.dcm", b"-10.0\\5.0", b"words\\5.0"),
        "could not convert",
    ),
    "a position that is no number": (
        edited(NAMES[2], lambda one: setattr(one, "ImagePositionPatient", ["nan"] * 3)),
        "a position that is no number",
    ),
    "directions of one line": (
        edited(None, lambda one: setattr(one, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0])),
        "not at right angles",
    ),
    "a pipe as its mask": (
        lambda root: ((root / "masks" / "a.dcm").unlink(), os.mkfifo(root / "masks" / "a.dcm")),
        "is not a regular file",
    ),
    "a label map whose voxels lie on one another": (flat_label_map, "lays voxels on one another"),
    "a label map of huge numbers": (
        lambda root: nib.Nifti1Image(np.full((32, 32, PLANES), 1e30, np.float32), np.eye(4)).to_filename(
            root / "masks" / "b.nii.gz"
        ),
        "does not lie on the voxels",
    ),
    "a frame between two slices": (
        frame_of(lambda one: moved(one, [-10.0, 5.0, -96.2])),
        "frame 2 does not lie on the voxels of a/IM0.dcm",
    ),
    "a frame beside its slice": (
        frame_of(lambda one: moved(one, [-10.0, 5.4, -97.5])),
        "frame 2 does not lie on the voxels of a/IM0.dcm",
    ),
    "frames without a position": (
        frame_of(lambda one: delattr(one.PerFrameFunctionalGroupsSequence[1], "PlanePositionSequence")),
        "cannot be read as a DICOM segmentation",
    ),
    "frames in another frame of reference": (
        frame_of(lambda one: setattr(one, "FrameOfReferenceUID", "1.2.9")),
        "another frame of reference",
    ),
    "segments that overlap": (overlapping, "segments that overlap"),
    "an image as its mask": (
        lambda root: shutil.copy(root / "images" / "a" / "IM0.dcm", root / "masks" / "a.dcm"),
        "is no DICOM segmentation",
    ),
    "a label map beside it": (
        lambda root: nib.Nifti1Image(np.ones((32, 32, PLANES), np.uint8), np.diag([1, 1, 2.5, 1])).to_filename(
            root / "masks" / "b.nii.gz"
        ),
        "does not lie on the voxels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_volume_is_one_line(case: str, scans: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for path in (path for path in scans.rglob("*") if path.is_file()):
        target = data / path.relative_to(scans)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    damage, said = BAD[case]
    damage(data)
    with pytest.raises(UserError, match=said):
        open_data(str(data))
    left = open_data(str(data), skip_bad=True)
    assert len(left.left_out) >= 1
    assert len(left.data) == PLANES
