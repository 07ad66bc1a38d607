"""Sets of medical files from folder to release and back: slices, windows, label maps, patients' volumes whole."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medveil.errors import UserError
from medveil.launch.audit.samples import clean_selection
from medveil.launch.cli import main
from medveil.launch.data import open_data, split_holdout
from medveil.launch.data.config import Reading
from medveil.launch.data.formats import dicom, nifti, sixteen
from medveil.launch.data.formats.windows import CT, TOLERANCE, Scale, change_in_levels
from medveil.launch.data.images import write_picture
from medveil.launch.data.opening import Opener
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.voxels import can_rebuild
from tests.launch.data.formats.real import dicom_file
from tests.launch.releases import both_manifests

nib = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

LEVELS = 4


def volume(seed: int, shape: tuple[int, int, int] = (24, 20, 6)) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units of a volume with two organs, and their label map; its first slice shows neither."""
    rng = np.random.default_rng(seed)
    row, column, plane = np.mgrid[: shape[0], : shape[1], : shape[2]]
    ball = (row - 10) ** 2 + (column - 10) ** 2 + 4 * (plane - 4) ** 2 < 36
    labels = (ball * (1 + (row > 10)) * (plane > 0)).astype(np.uint8)
    values = rng.normal(20, 40, shape) + 200 * (labels > 0) - 900 * (row < 3)
    return np.round(values).astype(np.int16), labels


def save(path: Path, array: np.ndarray, slope: float = 1.0, inter: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([0.7, 0.7, 3.0, 1.0]))
    image.header["descrip"] = b"Jane Doe"
    if (slope, inter) != (1.0, 0.0):
        image.header.set_slope_inter(slope, inter)
    image.to_filename(path)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "volumes"
    for i in range(3):
        values, labels = volume(i)
        save(folder / "images" / f"case{i}.nii.gz", values)
        save(folder / "masks" / f"case{i}.nii.gz", labels)
    return folder


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases of two channels."""
    folder = tmp_path_factory.mktemp("data") / "Dataset001_Balls"
    for i in range(2):
        for channel in range(2):
            save(folder / "imagesTr" / f"case{i}_{channel:04d}.nii.gz", volume(10 * i + channel)[0])
        save(folder / "labelsTr" / f"case{i}.nii.gz", volume(0)[1])
    about = {"channel_names": {"0": "CT", "1": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}}
    told = {**about, "numTraining": 2, "file_ending": ".nii.gz", "description": "of St. Elsewhere"}
    (folder / "dataset.json").write_text(json.dumps(told))
    return folder


def protect(data: Path, out: Path, *more: str) -> Path:
    settings = ["--method", "random", "--eps", f"{LEVELS}/255", "--device", "cpu", "--seed", "1", *more]
    assert main(["protect", str(data), "--out", str(out), *settings]) == 0
    return out


def test_volumes_are_sets_of_slices(volumes: Path) -> None:
    source = open_data(str(volumes))
    assert list(source.data.ids) == [f"case{i}/{plane:04d}" for i in range(3) for plane in range(6)]
    assert (source.data.task, source.data.size, source.data.channels) == ("segmentation", (24, 20), 1)
    targets = source.data.read(range(6)).targets
    assert torch.equal(targets[:, 0].bool(), torch.from_numpy(np.moveaxis(volume(0)[1] > 0, 2, 0)))
    chosen = Opener(reading=Reading(labels=(2,))).open(str(volumes))
    assert chosen.fingerprint != source.fingerprint
    second = chosen.data.read(range(6)).targets
    assert torch.equal(second[:, 0].bool(), torch.from_numpy(np.moveaxis(volume(0)[1] == 2, 2, 0)))


def test_a_nifti_release_keeps_what_it_does_not_change(volumes: Path, tmp_path: Path) -> None:
    out = protect(volumes, tmp_path / "out", "--windows", "ct")
    for i in range(3):
        name = f"case{i}.nii.gz"
        before, after = nifti.read(volumes / "images" / name), nifti.read(out / "images" / name)
        change = change_in_levels(before.values, after.values, Scale(), CT)
        assert 2 < change.max() <= LEVELS + TOLERANCE
        assert not (before.values != after.values)[0].any(), "a slice without foreground has nothing to protect"
        labels = [nib.load(folder / "masks" / name) for folder in (volumes, out)]
        assert np.array_equal(labels[0].dataobj, labels[1].dataobj)
        assert np.array_equal(labels[0].affine, labels[1].affine)
    assert b"Jane Doe" not in b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    manifest = both_manifests(out)
    assert len(manifest["samples"]) == 18
    assert {sample["plane"] for sample in manifest["samples"]} == set(range(6))
    unprotected = [sample for sample in manifest["samples"] if not sample["protected"]]
    assert {sample["reason"] for sample in unprotected} == {"empty mask"}
    again = open_data(str(out))
    assert list(again.data.ids) == list(open_data(str(volumes)).data.ids)


def test_a_hold_out_never_cuts_a_volume(volumes: Path, tmp_path: Path) -> None:
    out = protect(volumes, tmp_path / "out", "--holdout", "0.34")
    held = {sample.split("/")[0] for sample in both_manifests(out)["held_out"]}
    released = {sample.id.split("/")[0] for sample in Manifest.read(out).samples}
    assert len(held) == 1
    assert not held & released
    assert len(list((out / "images").iterdir())) == 2


def test_a_hold_out_never_cuts_a_case(nnunet: Path) -> None:
    """Its channels share one label map."""
    source = open_data(str(nnunet))
    for seed in range(4):
        _, held = split_holdout(source.data, 0.5, seed, source.grouped())
        assert len({source.data.ids[i].partition("_")[0] for i in held}) == 1


def test_contributors_of_volumes_merge_into_a_set_that_nnunet_reads(nnunet: Path, tmp_path: Path) -> None:
    parts = []
    for i in range(2):
        data = tmp_path / f"hospital{i}"
        shutil.copytree(nnunet, data)
        for path in data.rglob(f"case{1 - i}*"):
            path.unlink()
        parts.append(protect(data, tmp_path / f"part{i}"))
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    whole = open_data(str(tmp_path / "merged"))
    assert (len(whole.data), whole.labels) == (24, (1, 2))
    told = json.loads((tmp_path / "merged" / "dataset.json").read_text())
    assert (told["numTraining"], told["channel_names"]) == (2, {"0": "CT", "1": "CT"})
    assert len(json.loads((tmp_path / "merged" / "datalist.json").read_text())["training"]) == 2


def test_nnunet_in_and_out(nnunet: Path, tmp_path: Path) -> None:
    out = protect(nnunet, tmp_path / "out")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        *(f"imagesTr/case{i}_{channel:04d}.nii.gz" for i in range(2) for channel in range(2)),
        *(f"labelsTr/case{i}.nii.gz" for i in range(2)),
        *("dataset.json", "datalist.json", "manifest.json"),
    }
    about = json.loads((out / "dataset.json").read_text())
    assert about == {
        "channel_names": {"0": "CT", "1": "CT"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "file_ending": ".nii.gz",
        "numTraining": 2,
    }
    for name in sorted(names):
        if name.startswith("imagesTr"):
            before, after = nifti.read(nnunet / name), nifti.read(out / name)
            assert 2 < change_in_levels(before.values, after.values, Scale(), CT).max() <= LEVELS + TOLERANCE
    cases = json.loads((out / "datalist.json").read_text())["training"]
    assert cases[1] == {
        "image": ["imagesTr/case1_0000.nii.gz", "imagesTr/case1_0001.nii.gz"],
        "label": "labelsTr/case1.nii.gz",
    }
    assert list(open_data(str(out)).data.ids) == list(open_data(str(nnunet)).data.ids)
    (out / "dataset.json").write_text("{}")
    assert Manifest.read(out).first_damage(out) == "dataset.json"


def test_nnunet_itself_takes_a_release(nnunet: Path, tmp_path: Path) -> None:
    integrity = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    integrity.verify_dataset_integrity(str(protect(nnunet, tmp_path / "Dataset002_Release")), num_processes=1)


def test_monai_itself_takes_a_release(volumes: Path, tmp_path: Path) -> None:
    monai = pytest.importorskip("monai.data")
    out = protect(volumes, tmp_path / "out")
    cases = monai.load_decathlon_datalist(str(out / "datalist.json"), True, "training")
    assert [Path(case["image"]) for case in cases] == sorted((out / "images").iterdir())
    assert [Path(case["label"]) for case in cases] == sorted((out / "masks").iterdir())


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pydicom's CT, whole and turned, of two patients, with PNG masks; 14 of 16 bits are beside it in JPEG 2000."""
    folder = tmp_path_factory.mktemp("data") / "slices"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    dataset = pydicom.dcmread(dicom_file("CT_small.dcm"))
    dataset.PatientIdentityRemoved, dataset.PatientName = "YES", "Doe^Jane"
    mask = np.zeros((128, 128), np.uint8)
    mask[40:80, 50:90] = 255
    for i in range(3):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{i}"
        dataset.PatientID = f"patient{i}"
        dataset.PixelData = np.rot90(dataset.pixel_array).astype("<i2").tobytes()
        dataset.save_as(folder / "images" / f"slice{i}.dcm")
        Image.fromarray(mask).save(folder / "masks" / f"slice{i}.png")
    return folder


def test_a_dicom_release_reads_as_dicom(slices: Path, tmp_path: Path) -> None:
    out = protect(slices, tmp_path / "out")
    uids, patients = set(), set()
    for i in range(3):
        before, after = (dicom.read(folder / "images" / f"slice{i}.dcm") for folder in (slices, out))
        change = change_in_levels(before.values, after.values, before.scale, CT)
        assert 3 < change.max() <= LEVELS
        row, column = np.nonzero(change[0])
        assert (row.min(), row.max(), column.min(), column.max()) == (39, 80, 49, 90)
        dataset = pydicom.dcmread(out / "images" / f"slice{i}.dcm")
        uids.add(dataset.SOPInstanceUID)
        patients.add(dataset.PatientID)
        assert dataset.ImageType[0] == "DERIVED"
    assert len(uids) == len(patients) == 3
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not any(text in everything for text in (b"Doe", b"patient0", b"1.2.3.0"))


def test_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for i, label in enumerate("abab"):
        folder = data / label
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{i}.{'png' if i < 2 else 'tif'}"
        write_picture(path, rng.integers(900, 4096, (32, 40)).astype(np.uint16))
    source = open_data(str(data))
    assert source.class_names == ["a", "b"]
    (window,) = {file.windows for file in source.files}
    assert 900 <= window[0].low < 1000
    out = protect(data, tmp_path / "out")
    for path in data.rglob("*.*"):
        before, after = sixteen.read(path), sixteen.read(out / "images" / path.relative_to(data))
        change = change_in_levels(before.values, after.values, Scale(), window)
        assert 3 < change.max() <= LEVELS
        assert len(np.unique(after.values)) > 256


def test_what_shows_nowhere_and_what_is_all_one_value(tmp_path: Path) -> None:
    """Noise on voxels that are black in the window, and a volume that no window can be made of."""
    values, labels = volume(0)
    for name, array in (("a", values), ("b", np.full_like(values, 7))):
        save(tmp_path / "data" / "images" / f"{name}.nii", array, slope=3.0)
        save(tmp_path / "data" / "masks" / f"{name}.nii", labels)
    out = protect(tmp_path / "data", tmp_path / "out", "--windows", "20000/90000")
    assert both_manifests(out)["totals"]["psnr"] is None
    changed = nifti.read(out / "images" / "a.nii").values != nifti.read(tmp_path / "data" / "images" / "a.nii").values
    assert changed.any()
    assert both_manifests(out)["visible"]["z-score"]["max"] < 255
    out = protect(tmp_path / "data", tmp_path / "plain")
    assert both_manifests(out)["totals"]["protected"] == 8


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no mask": (lambda root: (root / "masks" / "case1.nii.gz").unlink(), "case1.nii.gz has no mask"),
    "a mask of another size": (
        lambda root: save(root / "masks" / "case1.nii.gz", np.ones((5, 5, 5), np.uint8)),
        "is 5x5x5 and its image 6x24x20",
    ),
    "a mask of fractions": (
        lambda root: save(root / "masks" / "case1.nii.gz", np.full((24, 20, 6), 0.5, np.float32)),
        "values that are no labels",
    ),
    "labels of huge numbers": (
        lambda root: save(root / "masks" / "case1.nii.gz", np.full((24, 20, 6), 1e30, np.float32)),
        "values that are no labels",
    ),
    "negative labels": (
        lambda root: save(root / "masks" / "case1.nii.gz", np.full((24, 20, 6), -1, np.int16)),
        "values that are no labels",
    ),
    "a volume cut short": (
        lambda root: (root / "images" / "case1.nii.gz").write_bytes(
            (root / "images" / "case0.nii.gz").read_bytes()[:300]
        ),
        "cannot be read as NIfTI",
    ),
    "a picture among volumes": (
        lambda root: (
            Image.new("L", (20, 24)).save(root / "images" / "x.png"),
            Image.new("L", (20, 24)).save(root / "masks" / "x.png"),
        ),
        "a picture of 8 bits among medical files",
    ),
    "sums that do not agree": (
        lambda root: flip(root / "masks" / "case1.nii.gz", -6),
        "CRC check failed",
    ),
    "label maps of nothing": (
        lambda root: [save(path, np.zeros((24, 20, 6), np.uint8)) for path in (root / "masks").iterdir()],
        "nothing to protect: a label but 0 is in none of its label maps",
    ),
    "four dimensions": (
        lambda root: save(root / "images" / "case1.nii.gz", np.zeros((4, 4, 4, 2), np.int16)),
        "4 dimensions",
    ),
    "two of one name": (
        lambda root: save(root / "images" / "case1.nii", volume(1)[0]),
        "case1.nii.gz have the same id 'case1'",
    ),
    "a mask without image": (
        lambda root: save(root / "masks" / "case9.nii.gz", volume(1)[1]),
        "case9.nii.gz has no image called 'case9'",
    ),
    "a folder among volumes": (
        lambda root: save(root / "images" / "patient" / "case1.nii.gz", volume(1)[0]),
        "images/patient is a folder",
    ),
    "two masks of one image": (
        lambda root: save(root / "masks" / "case1.nii", volume(1)[1]),
        "case1.nii.gz have the same id 'case1'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_line(
    case: str, volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for path in volumes.rglob("*.gz"):
        target = data / path.relative_to(volumes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    damage, said = BAD[case]
    damage(data)
    assert main(["protect", str(data), "--out", str(tmp_path / "out"), "--method", "random", "--device", "cpu"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def flat(path: Path) -> None:
    save(path, np.ones((8, 8, 4), np.uint8))


def deep(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("write", "names", "said"),
    [
        (flat, ["train/0.nii.gz", "test/1.nii.gz"], "holds splits (test, train), not classes"),
        (flat, ["a/0.nii.gz", "b/1.nii.gz", "2.nii.gz"], "2.nii.gz lies beside the folders a, ..."),
        (deep, ["a/x.png", "a/x_mask.png", "b/y.png", "b/y_mask.png"], "x_mask, which is called as a mask"),
    ],
)
def test_folders_that_are_no_classes_are_refused(
    write: Callable[[Path], None], names: list[str], said: str, tmp_path: Path
) -> None:
    for name in names:
        write(tmp_path / name)
    with pytest.raises(UserError, match=re.escape(said)):
        open_data(str(tmp_path))


def test_label_maps_beside_their_volumes_are_no_class(tmp_path: Path) -> None:
    for i in range(2):
        for folder, array in zip(("scans", "drawn"), volume(i), strict=True):
            save(tmp_path / folder / f"{i}.nii.gz", array)
    with pytest.raises(UserError, match="those of drawn/ look like masks"):
        open_data(str(tmp_path))


def test_files_of_no_known_format_are_told(volumes: Path, tmp_path: Path) -> None:
    shutil.copytree(volumes, tmp_path / "data")
    (tmp_path / "data" / "images" / "case9.nrrd").write_bytes(b"NRRD0004")
    assert "case9.nrrd" in open_data(str(tmp_path / "data")).notes[0]


def test_all_of_a_release_is_on_the_disk_before_it_has_its_name(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, real = set(), os.fsync

    def fsync(number: int) -> None:
        kept.add(Path(f"/proc/self/fd/{number}").readlink().name)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    out = protect(volumes, tmp_path / "out")
    assert kept >= {path.name for path in out.rglob("*")}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--labels", ",".join(map(str, range(1, 40)))], "--labels names 39 values: at most 32"),
        (["--size", "64"], "would resample"),
        (["--empty", "drop"], "volumes, which keep their slices"),
        (["--labels", "8,9"], "--labels 8,9 is in none of its label maps"),
        (["--windows", "4"], "give ct, ct+brain, or WIDTH/CENTRE"),
    ],
)
def test_options_that_volumes_do_not_take(
    flags: list[str], said: str, volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["protect", str(volumes), "--out", str(tmp_path / "out"), "--method", "random", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["volumes", "nnunet", "slices"])
def test_a_key_gives_the_original_files_back(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, raw_key: str
) -> None:
    """NIfTI with its header and text, DICOM with its identifiers and attributes."""
    pytest.importorskip("cryptography")
    data = request.getfixturevalue(name)
    key = ["--key", str(tmp_path / "key"), "--key-from", raw_key]
    out = protect(data, tmp_path / "out", *key)
    assert main(["restore", str(out), *key, "--out", str(tmp_path / "back")]) == 0
    for path in data.rglob("*.*"):
        back = tmp_path / "back" / path.relative_to(data)
        if path.name.endswith(".nii.gz"):
            assert gzip.decompress(back.read_bytes()) == gzip.decompress(path.read_bytes())
        elif path.suffix == ".dcm":
            assert pydicom.dcmread(back) == pydicom.dcmread(path)
        elif path.suffix == ".png":
            assert np.array_equal(Image.open(back), Image.open(path))


def test_a_file_in_another_encoding_than_it_says_is_in_a_key_whole() -> None:
    assert can_rebuild(dicom_file("SC_rgb_jpeg.dcm"), "dicom") is False
    assert can_rebuild(dicom_file("CT_small.dcm"), "dicom") is True


def test_a_key_for_the_volumes_of_one_patient(volumes: Path, tmp_path: Path, raw_key: str) -> None:
    pytest.importorskip("cryptography")
    table = tmp_path / "patients.csv"
    table.write_text("id,group\ncase0,Ada\ncase1,Bea\ncase2,Ada\n")
    out, key, secret = tmp_path / "out", tmp_path / "ada.key", ["--key-from", raw_key]
    protect(volumes, out, "--groups", str(table), "--key-for", f"Ada={key}", *secret)
    assert main(["restore", str(out), "--key", str(key), *secret, "--out", str(tmp_path / "back")]) == 0
    assert [path.name for path in sorted((tmp_path / "back" / "images").iterdir())] == ["case0.nii.gz", "case2.nii.gz"]


def test_bad_files_are_left_out_where_that_is_asked_for(
    nnunet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the other channels of their case."""
    data = tmp_path / "data"
    shutil.copytree(nnunet, data)
    (data / "imagesTr" / "case0_0001.nii.gz").write_bytes(b"cut short")
    assert main(["check", str(data)]) == 1
    assert "case0_0001.nii.gz" in capsys.readouterr().out
    out = protect(data, tmp_path / "out", "--skip-bad")
    assert sorted(path.name for path in (out / "imagesTr").iterdir()) == ["case1_0000.nii.gz", "case1_0001.nii.gz"]
    assert [one["id"] for one in both_manifests(out)["dropped"]] == ["case0_0001"]


def test_check_tells_depth_size_and_windows(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(volumes), "--method", "random", "--windows", "400/40,80/40"]) == 0
    printed = capsys.readouterr().out
    assert "18 slices: 3 NIfTI file of int16, 20x24, 0.7x0.7x3 mm" in printed
    assert "400/40 (-160 to 240), 80/40 (0 to 80)" in printed


def test_classes_of_a_table(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("id,class\nslice0,calm\nslice1,ill\nslice2,ill\n")
    out = protect(slices, tmp_path / "out", "--labels-from", str(table))
    names = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*.dcm"))]
    assert names == [f"images/{name}.dcm" for name in ("calm/slice0", "ill/slice1", "ill/slice2")]
    opener = Opener(reading=Reading(labels_from=str(table)))
    released = opener.open(str(out))
    assert released.class_names == ["calm", "ill"]
    clean = clean_selection(out, str(slices), released, Manifest.read(out), opener)
    assert clean.ids == ("slice0", "slice1", "slice2")
    table.write_text("id,class\nslice0,../calm\n")
    command = ["protect", str(slices), "--labels-from", str(table), "--out", str(tmp_path / "other")]
    assert main(command) == 2
    assert "cannot be the name of a folder" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "jpg"])
def test_nnunet_of_pictures_keeps_its_labels_and_formats(
    suffix: str, tmp_path: Path, raw_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    rng = np.random.default_rng(0)
    for i in range(3):
        for folder, values in (
            ("imagesTr", rng.integers(0, 256, (20, 24))),
            ("labelsTr", rng.integers(0, 3, (20, 24))),
        ):
            path = tmp_path / "data" / folder / f"case{i}{'_0000' if folder == 'imagesTr' else ''}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(path)
    about = {"channel_names": {"0": "gray"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": f".{suffix}"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(about))
    if suffix == "jpg":
        assert main(["protect", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--method", "random"]) == 2
        assert "is a JPEG" in capsys.readouterr().err
        return
    key = ["--key", str(tmp_path / "key"), "--key-from", raw_key]
    out = protect(tmp_path / "data", tmp_path / "out", *key)
    assert main(["restore", str(out), *key, "--out", str(tmp_path / "back")]) == 0
    for path in (tmp_path / "data").rglob(f"*.{suffix}"):
        name = path.relative_to(tmp_path / "data")
        opened = [Image.open(folder / name) for folder in (tmp_path / "data", out, tmp_path / "back")]
        assert len({image.format for image in opened}) == 1
        assert np.array_equal(opened[0], opened[2])
    for i in range(3):
        name = f"labelsTr/case{i}.{suffix}"
        assert np.array_equal(Image.open(out / name), Image.open(tmp_path / "data" / name))
        images = [
            np.asarray(Image.open(folder / f"imagesTr/case{i}_0000.{suffix}")).astype(int)
            for folder in (tmp_path / "data", out)
        ]
        assert np.abs(images[0] - images[1]).max() == LEVELS


def test_a_bound_of_less_than_a_stored_unit_is_refused(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--method", "random", "--eps", "4/255", "--device", "cpu", "--windows", "40/40"]
    assert main(["protect", str(volumes), "--out", str(tmp_path / "out"), *settings]) == 2
    assert "less than one stored unit (1)" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {".out.run"}
