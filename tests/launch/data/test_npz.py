"""MedMNIST's npz files, and the ways in which a file is none."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import medmnist.info
import numpy as np
import pytest
import torch
import torchvision.datasets.utils

from medveil.errors import UserError
from medveil.launch.data import npz_arrays, open_data

Arrays = dict[str, Any]


def _arrays(channels: int | None = None, labels: int = 1, classes: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, count in (("train", 20), ("val", 6), ("test", 9)):
        shape = (count, 28, 28) if channels is None else (count, 28, 28, channels)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        values = np.arange(count * labels).reshape(count, labels) % (classes if labels == 1 else 2)
        arrays[f"{split}_labels"] = values.astype(np.uint8)
    return arrays


def _open(path: Path, arrays: Arrays, **options: Any) -> Any:
    np.savez_compressed(path, **arrays)
    return open_data(str(path), **options)


def test_train_is_protected_and_test_is_the_test_part(tmp_path: Path) -> None:
    arrays = _arrays()
    source = _open(tmp_path / "set.npz", arrays)
    assert (source.kind, source.name, source.npz_path) == ("npz", "set", tmp_path / "set.npz")
    assert (source.data.task, source.data.num_classes, source.class_names) == ("classification", 3, None)
    assert source.data.ids[12] == "train/12"
    assert source.test.ids[8] == "test/8"
    batch = source.data.read([3, 19])
    np.testing.assert_array_equal(batch.images[:, 0], arrays["train_images"][[3, 19]])
    assert batch.targets.tolist() == arrays["train_labels"][[3, 19], 0].tolist()
    assert batch.targets.dtype == torch.int64
    np.testing.assert_array_equal(source.test.read(range(9)).images[:, 0], arrays["test_images"])
    assert source.origin(3).size == (28, 28)
    assert source.notes == []


def test_splits_widen_what_is_protected(tmp_path: Path) -> None:
    arrays = _arrays(channels=3)
    source = _open(tmp_path / "set.npz", arrays, splits=("train", "val"))
    assert len(source.data) == 26
    assert source.data.ids[20] == "val/0"
    expected = arrays["val_images"].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(source.data.read(range(20, 26)).images, expected)
    everything = open_data(str(tmp_path / "set.npz"), splits=("train", "val", "test"))
    assert len(everything.data) == 35
    assert everything.test is None


def test_many_labels_are_multilabel(tmp_path: Path) -> None:
    source = _open(tmp_path / "set.npz", _arrays(labels=4))
    assert (source.data.task, source.data.num_classes) == ("multilabel", 4)
    targets = source.data.read([0, 1]).targets
    assert targets.dtype == torch.uint8
    assert targets.shape == (2, 4)


def test_three_equal_channels_are_grey_only_if_the_test_part_agrees(tmp_path: Path) -> None:
    arrays = _arrays(channels=1)
    for name in arrays:
        if name.endswith("_images"):
            arrays[name] = arrays[name].repeat(3, axis=3)
    grey = _open(tmp_path / "grey.npz", arrays)
    assert (grey.data.channels, grey.test.channels) == (1, 1)
    assert "equal" in grey.notes[0]
    arrays["test_images"][4, 5, 6, 1] ^= 1
    colour = _open(tmp_path / "colour.npz", arrays)
    assert (colour.data.channels, colour.test.channels, colour.notes) == (3, 3, [])
    np.testing.assert_array_equal(colour.data.read([7]).images[0, 2], arrays["train_images"][7, ..., 0])


def test_the_fingerprint_is_of_the_arrays_not_of_the_file(tmp_path: Path) -> None:
    arrays = _arrays()
    compressed = _open(tmp_path / "one.npz", arrays)
    reordered: Arrays = {name: np.asfortranarray(arrays[name]) for name in reversed(arrays)}
    np.savez(tmp_path / "two.npz", **reordered)
    stored = open_data(str(tmp_path / "two.npz"))
    assert stored.fingerprint == compressed.fingerprint
    assert torch.equal(stored.data.read([5]).images, compressed.data.read([5]).images)
    arrays["val_images"][0, 0, 0] ^= 1
    assert _open(tmp_path / "three.npz", arrays).fingerprint != compressed.fingerprint


def test_blocks_of_a_large_array_are_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = _arrays(channels=3)
    monkeypatch.setattr(npz_arrays, "_BLOCK_BYTES", 3 * 28 * 28 * 3)
    source = _open(tmp_path / "set.npz", arrays)
    np.testing.assert_array_equal(source.data.read(range(20)).images, arrays["train_images"].transpose(0, 3, 1, 2))


def test_a_release_folder_with_one_npz_opens(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **_arrays())
    (tmp_path / "manifest.json").write_text("{}")
    source = open_data(str(tmp_path), splits=("train", "val"))
    assert (source.kind, source.name, len(source.data)) == ("npz", "set", 26)
    np.savez(tmp_path / "other.npz", **_arrays())
    with pytest.raises(UserError, match=r"holds 2 npz files: give one of them, such as .*other\.npz"):
        open_data(str(tmp_path))


def _spoiled(**changes: Callable[[Arrays], Any]) -> Arrays:
    arrays = _arrays()
    for name, change in changes.items():
        arrays[name] = change(arrays)
        if arrays[name] is None:
            del arrays[name]
    return arrays


def _labels(value: int, dtype: type = np.int64) -> Arrays:
    arrays = _arrays()
    arrays["train_labels"] = arrays["train_labels"].astype(dtype)
    arrays["train_labels"][7] = value
    return arrays


BAD: dict[str, tuple[Callable[[], Arrays], str]] = {
    "pickled images": (
        lambda: _spoiled(train_images=lambda a: np.array([*a["train_images"], None], dtype=object)),
        "train_images would need pickle",
    ),
    "anything pickled": (lambda: _spoiled(notes=lambda a: np.array([{}])), "notes would need pickle"),
    "no images": (lambda: {"x": np.zeros(3)}, "is no MedMNIST npz"),
    "no labels": (lambda: _spoiled(train_labels=lambda a: None), "train_images but no train_labels"),
    "floating images": (lambda: _spoiled(val_images=lambda a: a["val_images"] / 255.0), "val_images is float64"),
    "volumes in one split": (
        lambda: _spoiled(train_images=lambda a: np.zeros((20, 28, 28, 28), np.uint8)),
        "splits of different image sizes",
    ),
    "volumes of colours": (
        lambda: _spoiled(train_images=lambda a: np.zeros((20, 28, 28, 28, 3), np.uint8)),
        r"train_images has shape \(20, 28, 28, 28, 3\)",
    ),
    "an empty split": (
        lambda: _spoiled(train_images=lambda a: a["train_images"][:0], train_labels=lambda a: a["train_labels"][:0]),
        "train_images is empty",
    ),
    "other sizes": (lambda: _spoiled(test_images=lambda a: a["test_images"][:, 1:]), "different image sizes"),
    "too few labels": (lambda: _spoiled(val_labels=lambda a: a["val_labels"][1:]), r"val_labels has shape \(5, 1\)"),
    "floating labels": (lambda: _spoiled(val_labels=lambda a: a["val_labels"] * 0.5), "labels must be whole numbers"),
    "a negative label": (lambda: _labels(-1), r"train_labels\[7\] is -1, out of range"),
    "a wrapped label": (lambda: _labels(2**63, np.uint64), "out of range"),
    "one class": (
        lambda: {k: v * 0 if k.endswith("labels") else v for k, v in _arrays().items()},
        "one class only",
    ),
    "a multilabel of 2": (
        lambda: {k: v * 2 if k == "train_labels" else v for k, v in _arrays(labels=4).items()},
        r"train_labels\[0\] is 2, out of range: labels are 0 to 1",
    ),
    "uneven labels": (
        lambda: _spoiled(val_labels=lambda a: np.repeat(a["val_labels"] % 2, 2, axis=1)),
        "different numbers of labels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_medmnist_npz_is_refused(tmp_path: Path, case: str) -> None:
    make, said = BAD[case]
    with pytest.raises(UserError, match=said) as refused:
        _open(tmp_path / "set.npz", make())
    assert str(refused.value).startswith(str(tmp_path / "set.npz"))
    assert "\n" not in str(refused.value)


def _bomb(path: Path) -> None:
    """An object array that would run code if it were unpickled."""

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (path.parent / "ran",))

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", header.getvalue() + pickle.dumps(Bomb()))


def _cut(path: Path) -> None:
    np.savez(path, **_arrays())
    path.write_bytes(path.read_bytes()[:-400])


def _flipped(path: Path) -> None:
    np.savez(path, **_arrays())
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)


def _short_member(path: Path) -> None:
    member = io.BytesIO()
    np.save(member, _arrays()["train_images"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", member.getvalue()[:-10])


def _no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", b"hello")


def _newer(path: Path) -> None:
    """An archive that says that a later version of ZIP is needed."""
    np.savez(path, **_arrays())
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)


def _open_header(path: Path) -> None:
    header = b"{'descr': '|u1'}" + b"(" * 600 + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


FILES = {
    "a pickle": (_bomb, "would need pickle"),
    "a truncated file": (_cut, "cannot be read"),
    "a damaged file": (_flipped, "cannot be read .*Bad CRC"),
    "a truncated array": (_short_member, "train_images is truncated"),
    "a later version of zip": (_newer, "cannot be read .*zip file version"),
    "a header without end": (_open_header, "train_images cannot be read"),
    "no array": (_no_array, "train_images cannot be read"),
    "no archive": (lambda path: path.write_bytes(b"text"), "damaged or no npz"),
}


@pytest.mark.parametrize("case", FILES)
def test_damaged_and_dangerous_files_are_refused(tmp_path: Path, case: str) -> None:
    write, said = FILES[case]
    write(tmp_path / "set.npz")
    with pytest.raises(UserError, match=said):
        open_data(str(tmp_path / "set.npz"))
    assert not (tmp_path / "ran").exists()


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, **_arrays())
    assert open_data(str(path), size=28).data.size == (28, 28)
    with pytest.raises(UserError, match=r"28x28 images and an npz is never resized: leave out --size 64"):
        open_data(str(path), size=64)
    with pytest.raises(UserError, match="has no split 'dev': choose from test, train, val"):
        open_data(str(path), splits=("train", "dev"))
    with pytest.raises(UserError, match="at most once"):
        open_data(str(path), splits=("train", "train"))


def test_known_names_bring_their_classes(tmp_path: Path) -> None:
    source = _open(tmp_path / "pneumoniamnist_64.npz", _arrays(classes=2))
    assert source.class_names == ["normal", "pneumonia"]
    assert source.origin(1).class_name == "pneumonia"
    with pytest.raises(UserError, match=r"out of range: labels are 0 to 1"):
        _open(tmp_path / "breastmnist.npz", _arrays(classes=3))
    with pytest.raises(UserError, match="1 labels an image where ChestMNIST has 14"):
        _open(tmp_path / "chestmnist.npz", _arrays())
    # Absent from every split, a class still counts.
    assert _open(tmp_path / "bloodmnist.npz", _arrays(classes=3)).data.num_classes == 8


def test_downloads_come_from_the_registry_or_fail_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist.info, "DEFAULT_ROOT", str(tmp_path))
    np.savez(tmp_path / "master", **_arrays())
    content = (tmp_path / "master.npz").read_bytes()
    asked = []

    def download(url: str, root: str, filename: str, md5: str) -> None:
        asked.append((url, md5))
        (Path(root) / filename).write_bytes(content)

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    source = open_data("medmnist:pathmnist:64")
    info = medmnist.info.INFO["pathmnist"]
    assert asked == [(info["url_64"], info["MD5_64"])]
    assert (source.name, source.npz_path) == ("pathmnist_64", tmp_path / "pathmnist_64.npz")

    def offline(*_: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", offline)
    with pytest.raises(UserError, match=r"medmnist:breastmnist could not be downloaded .*give its path"):
        open_data("medmnist:breastmnist")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["master.npz", "pathmnist_64.npz"]
    with pytest.raises(UserError, match="no MedMNIST set is called 'bones'"):
        open_data("medmnist:bones")
    with pytest.raises(UserError, match="there is no size 32"):
        open_data("medmnist:breastmnist:32")


@pytest.mark.parametrize(("name", "train", "test"), [("breastmnist", 546, 156), ("pneumoniamnist", 4708, 624)])
def test_real_sets(real_data: Path, name: str, train: int, test: int) -> None:
    source = open_data(str(real_data / "medmnist" / f"{name}.npz"))
    assert (source.name, len(source.data), source.data.num_classes, source.data.channels) == (name, train, 2, 1)
    assert source.test is not None
    assert len(source.test) == test
