"""Files of a data set that are not what they seem: all of them named at once, or left out where that is asked for."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.cli import main
from medveil.launch.data import open_data
from tests.launch.hostile.common import noise, refused, save
from tests.launch.releases import both_manifests

PROTECT = ["protect", "--method", "random", "--threads", "1", "--seed", "1", "--size", "16"]
MASK = np.pad(np.full((8, 8), 255), 4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def masked(root: Path, count: int = 6) -> Path:
    for i in range(count):
        save(root / "images" / f"{i}.png", noise(i))
        save(root / "masks" / f"{i}.png", MASK)
    return root


def classes(root: Path, *names: str, count: int = 3) -> Path:
    for number, name in enumerate(names):
        for i in range(count):
            save(root / name / f"{name}{i}.png", noise(10 * number + i))
    return root


def of_bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (path.unlink(), make(path))


def grey_values(*values: int) -> Callable[[Path], object]:
    return lambda path: save(path, np.resize(values, (16, 16)))


BAD_IMAGES: dict[str, Callable[[Path], object]] = {
    "empty": of_bytes(b""),
    "text": of_bytes(b"no picture"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "a pipe": replaced(os.mkfifo),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "a GIF within": lambda path: Image.fromarray(noise(1)).save(path, "GIF"),
    "16 bits": lambda path: Image.fromarray(noise(1).astype(np.uint16) * 200).save(path),
    "transparent": lambda path: Image.fromarray(np.dstack([noise(1)] * 4)).save(path),
    "of another size": lambda path: save(path, noise(1)[:8]),
}


@pytest.mark.parametrize("damage", BAD_IMAGES.values(), ids=list(BAD_IMAGES))
def test_a_bad_image_is_named(damage: Callable[[Path], object], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(masked(here / "data") / "images" / "3.png")
    refused([*PROTECT, "--data", "data", "--out", "out"], here, capsys, "3.png")


BAD_MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "three values": (grey_values(0, 1, 2), "has 3 values where a mask has two"),
    "no background": (grey_values(1, 2), "has 2 values and no 0"),
    "of another size": (lambda path: save(path, MASK[:8]), "3.png is 16x8 and its image 16x16"),
    "missing": (lambda path: path.unlink(), "3.png has no mask"),
    "a GIF": (lambda path: (path.unlink(), Image.fromarray(noise(1)).save(path.with_suffix(".gif"))), "is a GIF file"),
    "a JPEG": (lambda path: (path.unlink(), save(path.with_suffix(".jpg"), noise(1))), "JPEG, which blurs masks"),
    "of nothing": (lambda path: path.rename(path.with_name("9.png")), "9.png has no image"),
}


@pytest.mark.parametrize("case", BAD_MASKS.values(), ids=list(BAD_MASKS))
def test_a_bad_mask_is_named_for_what_it_is(
    case: tuple[Callable[[Path], object], str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, said = case
    damage(masked(here / "data") / "masks" / "3.png")
    refused([*PROTECT, "--data", "data", "--out", "out"], here, capsys, said)


def test_all_bad_files_are_named_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = masked(here / "data", 30)
    for i in range(3, 28):
        (data / "images" / f"{i}.png").write_bytes(b"")
    refused([*PROTECT, "--data", "data", "--out", "out"], here, capsys, "25 files of data", "10.png", "and 5 more")


def test_bad_files_are_left_out_and_listed_where_that_is_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = masked(here / "data")
    (data / "images" / "2.png").write_bytes(b"")
    save(data / "masks" / "4.png", MASK[:8])
    (data / "masks" / "5.png").unlink()
    whole = masked(here / "whole")
    for name in ("2", "4", "5"):
        for folder in ("images", "masks"):
            (whole / folder / f"{name}.png").unlink()
    for name in ("data", "whole"):
        assert main([*PROTECT, "--skip-bad", "--data", name, "--out", f"{name}-out"]) == 0
    assert "3 files of data left out (--skip-bad): " in capsys.readouterr().out
    manifest = both_manifests(here / "data-out")
    assert [sample["id"] for sample in manifest["samples"]] == ["0", "1", "3"]
    assert sorted(one["id"] for one in manifest["dropped"]) == ["2", "4", "5"]
    # What is left is protected as if nothing else had been there.
    for name in ("0", "1", "3"):
        image = Path("images") / f"{name}.png"
        assert (here / "data-out" / image).read_bytes() == (here / "whole-out" / image).read_bytes()
    for path in (data / "images").iterdir():
        path.write_bytes(b"")
    refused([*PROTECT, "--skip-bad", "--data", "data", "--out", "none"], here, capsys, "no image that can be used")


@pytest.mark.parametrize(
    "names",
    [
        ("imagesTr", "labelsTr"),
        ("imagesTs", "classes"),
        ("img", "gt"),
        ("image", "label"),
        ("a", "masks"),
        ("a", "mask_1"),
        ("a", "segmentation"),
        ("a", "SegmentationClass"),
        ("a", "Ground Truth"),
    ],
)
def test_images_and_masks_are_not_opened_as_classes(
    names: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes(here / "data", *names)
    refused([*PROTECT, "--data", "data", "--out", "out"], here, capsys, "which is no class")


def test_files_of_equal_names_are_masks_only_if_they_look_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        save(here / "numbered" / "benign" / f"{i}.png", noise(i))
        save(here / "numbered" / "malignant" / f"{i}.png", noise(9 + i))
        save(here / "paired" / "xray" / f"{i}.png", noise(i))
        save(here / "paired" / "annotation" / f"{i}.png", MASK)
    assert open_data("numbered", size=16).class_names == ["benign", "malignant"]
    refused([*PROTECT, "--data", "paired", "--out", "out"], here, capsys, "those of annotation/ look like masks")
    classes(here / "cells", "segmented neutrophil", "monocyte")
    assert open_data("cells", size=16).class_names == ["monocyte", "segmented neutrophil"]


def test_a_set_of_empty_masks_is_refused_before_the_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (masked(here / "data") / "masks").iterdir():
        save(path, np.zeros((16, 16)))
    refused([*PROTECT, "--data", "data", "--out", "out"], here, capsys, "every mask is empty")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_as_its_image_is(orientation: int, here: Path) -> None:
    """A mask of what is brighter than 127 in the image stays that, whatever EXIF says of the image."""
    pixels = np.kron(np.random.default_rng(0).integers(0, 2, (4, 6)) * 255, np.ones((4, 4))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (here / "images").mkdir()
    Image.fromarray(pixels).save(here / "images" / "a.png", exif=exif)
    save(here / "masks" / "a.png", pixels)
    source = open_data(".", size=24)
    image, mask, _ = source.data.read([0])
    assert ((image > 127) == (mask > 0)).float().mean() > 0.9
    assert any("its mask with it" in note for note in source.notes) == (orientation > 1)
    # A mask that says itself how it lies, and one that has the upright size, stay as they are.
    Image.fromarray(pixels).save(here / "masks" / "a.png", exif=exif)
    image, mask, _ = open_data(".", size=24).data.read([0])
    assert ((image > 127) == (mask > 0)).float().mean() > 0.9


def npz(path: Path, **changes: Any) -> Path:
    images = np.stack([noise(i) for i in range(6)])
    arrays = {"train_images": images, "train_labels": (np.arange(6) % 2)[:, None], **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def with_header(header: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        text = header.encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)

    return make


NPZ: dict[str, Callable[[Path], object]] = {
    "empty": of_bytes(b""),
    "text": of_bytes(b"no zip"),
    "cut": lambda path: path.write_bytes(npz(path).read_bytes()[:300]),
    "a label of 1e9": lambda path: npz(path, train_labels=np.array([0, 1, 0, 1, 0, 10**9])),
    "a label of 20,000": lambda path: npz(path, train_labels=np.array([0, 1, 0, 1, 0, 20_000])),
    "a negative label": lambda path: npz(path, train_labels=np.array([0, 1, 0, 1, 0, -1])),
    "20,000 labels each": lambda path: npz(path, train_labels=np.zeros((6, 20_000), np.uint8)),
    "floats": lambda path: npz(path, train_labels=np.zeros(6)),
    "one class": lambda path: npz(path, train_labels=np.zeros(6, np.int64)),
    "no labels": lambda path: npz(path, train_labels=None),
    "pickles": lambda path: npz(path, train_labels=np.array([{}] * 6)),
    "volumes in time": lambda path: npz(path, train_images=np.zeros((6, 8, 8, 8, 8), np.uint8)),
    "wide images": lambda path: npz(path, train_images=np.zeros((6, 8, 8), np.uint16)),
    "an odd type": with_header("{'descr': [], 'fortran_order': {}, 'shape': ([],)}"),
    "an unhashable type": with_header("{'descr': {}, 'fortran_order': False, 'shape': (6, 16, 16)}"),
    "no header": with_header("1 +"),
    "a huge shape": with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000)}"),
    "a negative shape": with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 16, 16)}"),
}


@pytest.mark.parametrize("make", NPZ.values(), ids=list(NPZ))
def test_an_npz_that_is_none_is_refused(
    make: Callable[[Path], object], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(here / "x.npz")
    refused(["protect", "--method", "random", "--data", "x.npz", "--out", "out"], here, capsys, "x.npz")


def test_names_and_permissions_of_folders(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = classes(here / "odd\x1b[2J", "a", "b")
    refused([*PROTECT, "--data", str(odd), "--out", "out"], here, capsys, "not plain text")
    classes(here / "data", "a", "b\n")
    refused([*PROTECT, "--data", "data", "--out", "out"], here, capsys, "not plain text")
    for spec in ("missing", "", "phantom:", "phantom:seg:x", "medmnist:nothing", "/dev/null", "x" * 5000):
        refused([*PROTECT, "--data", spec, "--out", "out"], here, capsys)
    with pytest.raises(UserError, match="does not exist"):
        open_data("a\x00b")


def test_a_hold_out_keeps_patients_whole(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(12):
        save(here / "data" / "images" / f"p{i % 4}_{i}.png", noise(i))
        save(here / "data" / "masks" / f"p{i % 4}_{i}.png", MASK)
    command = [*PROTECT, "--data", "data", "--groups", "^([^_]+)_"]
    refused([*command, "--out", "out"], here, capsys, "--groups goes with --holdout")
    assert main([*command, "--out", "out", "--holdout", "0.25"]) == 0
    manifest = both_manifests(here / "out")
    kept, held = ({name.partition("_")[0] for name in names} for names in (ids(manifest), manifest["held_out"]))
    assert (len(kept), len(held)) == (3, 1) and not kept & held


def ids(manifest: dict[str, Any]) -> list[str]:
    return [sample["id"] for sample in manifest["samples"]]
