"""Folders as hospitals and data sets have them: layouts, sizes, notes, and every mistake named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data import open_data, seen, store
from medveil.launch.data.config import Reading
from medveil.launch.data.opening import Opener

Write = Callable[[Path], None]


def _image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16), colour: bool = False) -> None:
    """A noisy image of ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def _mask(path: Path, box: tuple[int, int, int, int] | None = (2, 3, 9, 8), size: tuple[int, int] = (20, 16)) -> None:
    """A 1-bit mask of ``size`` with a rectangle (left, top, right, bottom) of foreground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("1", size)
    if box:
        image.paste(1, box)
    image.save(path)


def _pairs(root: Path, names: tuple[str, ...] = ("b", "a", "c")) -> None:
    for i, name in enumerate(names):
        _image(root / "images" / f"{name}.png", i)
        _mask(root / "masks" / f"{name}.png", (i, i, i + 6, i + 5))


def _classes(root: Path, suffix: str = "png") -> None:
    for i, name in enumerate(("naevus", "melanoma")):
        for k in range(3):
            _image(root / name / f"img_{k}.{suffix}", 10 * i + k)


def test_images_and_masks_are_paired_by_stem(tmp_path: Path) -> None:
    _pairs(tmp_path)
    _image(tmp_path / "images" / "photo.JPG", 9, (40, 30))
    _mask(tmp_path / "masks" / "photo.tif", None, (40, 30))
    (tmp_path / "images" / ".hidden.png").write_bytes(b"")
    (tmp_path / "images" / "readme.txt").write_text("x")
    source = open_data(str(tmp_path), size=16)
    assert (source.kind, source.name, source.test) == ("segmentation-folder", tmp_path.name, None)
    assert source.data.ids == ["a", "b", "c", "photo"]
    assert (source.data.size, source.data.channels, source.data.task) == ((16, 16), 1, "segmentation")
    batch = source.data.read([3, 1])
    assert batch.ids == ["photo", "b"]
    assert batch.images.shape == batch.targets.shape == (2, 1, 16, 16)
    assert batch.images.dtype == batch.targets.dtype == torch.uint8
    with Image.open(tmp_path / "images" / "b.png") as image:
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(batch.images[1, 0], expected)
    assert batch.targets[0].sum() == 0
    assert batch.targets.unique().tolist() == [0, 1]
    origin = source.origin(3)
    assert (origin.name, origin.size, origin.mode, origin.class_name) == ("photo.JPG", (40, 30), "L", None)
    assert source.notes == [
        f"1 file is left out of {tmp_path / 'images'}, not PNG, JPEG, TIFF or BMP: readme.txt",
        "4 images are resized from 20x16..40x30 to 16x16",
        "1 of 4 masks is empty",
    ]


@pytest.mark.parametrize(
    ("sizes", "release", "expected"),
    [
        (((48, 40), (48, 40)), False, (40, 48)),  # (width, height) of files, (height, width) of the set
        (((400, 300), (400, 300)), False, (256, 341)),
        (((400, 300), (300, 400)), False, (224, 224)),
        (((300, 300), (300, 300)), False, (256, 256)),
        (((300, 300), (300, 300)), True, (300, 300)),
        (((400, 300), (400, 300)), True, (256, 341)),
    ],
)
def test_images_are_worked_on_at_their_own_aspect_where_they_have_one(
    sizes: tuple[tuple[int, int], ...], release: bool, expected: tuple[int, int], tmp_path: Path
) -> None:
    for i, size in enumerate(sizes):
        _image(tmp_path / "images" / f"{i}.png", i, size)
        _mask(tmp_path / "masks" / f"{i}.png", size=size)
    if release:
        (tmp_path / "manifest.json").write_text("{}")
    assert open_data(str(tmp_path)).data.size == expected


def test_grey_among_colour_is_read_as_rgb(tmp_path: Path) -> None:
    _pairs(tmp_path)
    _image(tmp_path / "images" / "z.png", 5, colour=True)
    _mask(tmp_path / "masks" / "z.png")
    source = open_data(str(tmp_path), size=16)
    images = source.data.read(range(4)).images
    assert images.shape == (4, 3, 16, 16)
    assert (images[:3, 0] == images[:3, 1]).all()
    assert (images[:3, 0] == images[:3, 2]).all()
    assert not (images[3, 0] == images[3, 1]).all()
    assert any("1 of 4 images is coloured among grey ones (z): all are released as RGB" in n for n in source.notes)


def test_a_foreground_lost_by_resizing_is_said(tmp_path: Path) -> None:
    _image(tmp_path / "images" / "a.png", size=(200, 200))
    _mask(tmp_path / "masks" / "a.png", (0, 0, 2, 2), (200, 200))
    assert any("1 of 1 mask is empty after resizing" in note for note in open_data(str(tmp_path), size=16).notes)


def test_busi_layout_merges_masks(tmp_path: Path) -> None:
    _image(tmp_path / "benign" / "benign (2).png", 1)
    _mask(tmp_path / "benign" / "benign (2)_mask.png", (0, 0, 5, 5))
    _mask(tmp_path / "benign" / "benign (2)_mask_1.png", (10, 10, 16, 14))
    _image(tmp_path / "normal" / "normal (1).png", 2)
    _mask(tmp_path / "normal" / "normal (1)_mask.png", None)
    source = open_data(str(tmp_path), size=16)
    assert source.data.ids == ["benign (2)", "normal (1)"]
    with Image.new("1", (20, 16)) as union:
        union.paste(1, (0, 0, 5, 5))
        union.paste(1, (10, 10, 16, 14))
        expected = np.asarray(union.convert("L").resize((16, 16), Image.Resampling.NEAREST)) > 0
    targets = source.data.read([0, 1]).targets
    np.testing.assert_array_equal(targets[0, 0], expected)
    assert targets[1].sum() == 0


@pytest.mark.parametrize("inside", ["", "images"])
def test_one_folder_per_class(tmp_path: Path, inside: str) -> None:
    _classes(tmp_path / inside)
    source = open_data(str(tmp_path), size=16)
    assert (source.kind, source.class_names) == ("class-folder", ["melanoma", "naevus"])
    assert source.data.ids[2:4] == ["melanoma/img_2", "naevus/img_0"]
    assert source.data.read([0, 5]).targets.tolist() == [0, 1]
    assert (source.data.task, source.data.num_classes) == ("classification", 2)
    assert source.origin(5).name == "naevus/img_2.png"
    assert source.origin(5).class_name == "naevus"


def test_a_table_tells_the_classes(tmp_path: Path) -> None:
    for i in range(4):
        _image(tmp_path / "data" / f"{i}.png", 10 * i)
    table = tmp_path / "classes.csv"
    table.write_text("id,class\n0,b\n1,a\n2,a\n")
    opener = Opener(skip_bad=True, reading=Reading(labels_from=str(table)))
    source = opener.open(str(tmp_path / "data"))
    assert (source.data.ids, source.class_names) == (["0", "1", "2"], ["a", "b"])
    assert source.data.read([0, 1, 2]).targets.tolist() == [1, 0, 0]
    assert [file.name for file in source.files] == ["images/b/0.png", "images/a/1.png", "images/a/2.png"]
    table.write_text("id,class\n0,b\n1,b\n2,a\n")
    assert opener.open(str(tmp_path / "data")).fingerprint != source.fingerprint
    table.write_text("id;class\n0;b\n1;a\n2;a\n")
    with pytest.raises(UserError, match=r"has no column class: begin it with the line id,class"):
        opener.open(str(tmp_path / "data"))
    table.write_text("id,class\n0,b\n1,b\n2,a\n")
    with pytest.raises(UserError, match=r"3\.png has no class in the table"):
        replace(opener, skip_bad=False).open(str(tmp_path / "data"))


def test_a_class_of_bad_files_alone_is_no_class(tmp_path: Path) -> None:
    _classes(tmp_path)
    for path in (tmp_path / "naevus").iterdir():
        path.write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"has one class only \(melanoma\)"):
        open_data(str(tmp_path), skip_bad=True)
    _image(tmp_path / "scar" / "x.png")
    assert open_data(str(tmp_path), skip_bad=True).class_names == ["melanoma", "scar"]


def test_the_fingerprint_is_of_ids_and_bytes_not_of_paths(tmp_path: Path) -> None:
    prints = {}
    for name in ("one", "two", "image", "mask", "id"):
        _pairs(tmp_path / name)
    _image(tmp_path / "image" / "images" / "a.png", 99)
    _mask(tmp_path / "mask" / "masks" / "a.png", (0, 0, 1, 1))
    for part in ("images", "masks"):
        (tmp_path / "id" / part / "a.png").rename(tmp_path / "id" / part / "aa.png")
    for path in tmp_path.iterdir():
        prints[path.name] = open_data(str(path), size=16).fingerprint
    assert prints["one"] == prints["two"]
    assert len(set(prints.values())) == 4


def test_large_sets_lie_in_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pairs(tmp_path)
    _image(tmp_path / "images" / "z.png", 5, colour=True)
    _mask(tmp_path / "masks" / "z.png")
    in_memory = open_data(str(tmp_path), size=16).data.read(range(4))
    monkeypatch.setattr(store, "RAM_BUDGET", 100)
    mapped = open_data(str(tmp_path), size=16).data.read([2, 0, 3, 1])
    assert torch.equal(mapped.images, in_memory.images[[2, 0, 3, 1]])
    assert torch.equal(mapped.targets, in_memory.targets[[2, 0, 3, 1]])


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pairs(tmp_path)
    monkeypatch.setattr(store, "RAM_BUDGET", 100)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left on device.*TMPDIR"):
        open_data(str(tmp_path), size=16)


def test_results_come_in_order_beyond_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"{i:02}" for i in range(7))
    _pairs(tmp_path, names)
    whole = open_data(str(tmp_path), size=16)
    monkeypatch.setattr(seen, "_BLOCK", 3)
    blocks = open_data(str(tmp_path), size=16)
    assert torch.equal(blocks.data.read(range(7)).images, whole.data.read(range(7)).images)
    assert blocks.fingerprint == whole.fingerprint


def _without_mask(root: Path) -> None:
    (root / "masks" / "a.png").unlink()


def _without_image(root: Path) -> None:
    (root / "images" / "a.png").unlink()


def _no_masks_at_all(root: Path) -> None:
    for mask in (root / "masks").iterdir():
        mask.unlink()


def _no_masks_folder(root: Path) -> None:
    _no_masks_at_all(root)
    (root / "masks").rmdir()


def _empty(root: Path) -> None:
    for file in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
        file.unlink()


def _truncated(root: Path) -> None:
    _image(root / "images" / "a.png", size=(64, 64))
    (root / "images" / "a.png").write_bytes((root / "images" / "a.png").read_bytes()[:2000])


BAD_PAIRS: dict[str, tuple[Write, str]] = {
    "a missing mask": (_without_mask, r"images/a\.png has no mask: add masks/a\.png"),
    "no masks": (_no_masks_at_all, r"3 files of .* cannot be used \(.*images/a\.png has no mask; .*b\.png has no mask"),
    "no masks folder": (_no_masks_folder, "has images/ but no masks/"),
    "a mask without image": (_without_image, r"masks/a\.png has no image called 'a'"),
    "a mask of another size": (lambda root: _mask(root / "masks" / "a.png", size=(16, 20)), r"a\.png is 16x20"),
    "a mask of many values": (lambda root: _image(root / "masks" / "a.png"), r"masks/a\.png has \d+ values"),
    "one id twice": (lambda root: _image(root / "images" / "a.bmp"), r"a\.bmp and .*a\.png have the same id 'a'"),
    "one mask twice": (lambda root: _mask(root / "masks" / "a.bmp"), r"a\.bmp and .*a\.png have the same id 'a'"),
    "nothing in it": (_empty, "holds no PNG, JPEG, TIFF or BMP images"),
    "a truncated image": (_truncated, r"images/a\.png cannot be read"),
    "a folder among images": (lambda root: _image(root / "images" / "x" / "a.png"), r"images/x is a folder"),
    "a name that separates": (lambda root: _image(root / "images" / "a\\b.png"), r"has a name that is not plain text"),
    "a name on two lines": (lambda root: _image(root / "images" / "a\nb.png"), r"a\\nb\.png' has a name"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_mistakes_in_pairs_are_named(tmp_path: Path, case: str) -> None:
    spoil, said = BAD_PAIRS[case]
    _pairs(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said) as refused:
        open_data(str(tmp_path), size=16)
    assert "\n" not in str(refused.value)


def _one_class(root: Path) -> None:
    for path in (root / "naevus").iterdir():
        path.unlink()
    (root / "naevus").rmdir()


def _as_splits(root: Path) -> None:
    (root / "naevus").rename(root / "train")
    (root / "melanoma").rename(root / "test")


BAD_CLASSES: dict[str, tuple[Write, str]] = {
    "an image beside the classes": (lambda root: _image(root / "x.png"), r"x\.png lies beside the folders"),
    "an empty class": (lambda root: (root / "other").mkdir(), "other holds no PNG"),
    "one class": (_one_class, r"has one class only \(melanoma\)"),
    "splits": (_as_splits, r"holds splits \(test, train\), not classes"),
    "one id twice": (lambda root: _image(root / "naevus" / "img_0.bmp"), "the same id 'img_0'"),
    "a deeper folder": (lambda root: _image(root / "naevus" / "deep" / "x.png"), "naevus/deep is a folder"),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_mistakes_in_class_folders_are_named(tmp_path: Path, case: str) -> None:
    spoil, said = BAD_CLASSES[case]
    _classes(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        open_data(str(tmp_path), size=16)


def _busi(root: Path) -> None:
    for group in ("benign", "normal"):
        _image(root / group / f"{group} (1).png")
        _mask(root / group / f"{group} (1)_mask.png")


BAD_BUSI: dict[str, tuple[Write, str]] = {
    "a missing mask": (lambda root: _image(root / "benign" / "benign (2).png"), r"\(2\)\.png has no mask: add benign"),
    "a mask without image": (lambda root: _mask(root / "benign" / "x_mask_1.png"), r"x_mask_1\.png has no image"),
    "one id twice": (lambda root: _image(root / "normal" / "benign (1).png"), r"the same id 'benign \(1\)'"),
    "an image beside the folders": (lambda root: _image(root / "x.png"), r"x\.png lies beside the folders"),
}


@pytest.mark.parametrize("case", BAD_BUSI)
def test_mistakes_in_busis_layout_are_named(tmp_path: Path, case: str) -> None:
    spoil, said = BAD_BUSI[case]
    _busi(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        open_data(str(tmp_path), size=16)


def test_busi_as_published(real_data: Path) -> None:
    source = open_data(str(real_data / "busi-sample"), size=64)
    assert len(source.data) == 16
    assert source.data.channels == 1
    assert source.data.ids[0] == "benign (17)"
    assert source.origin(0).mode == "RGB"
    targets = source.data.read(range(16)).targets
    assert (targets.flatten(1).sum(1) == 0).sum() == 2  # the normals
    assert any("resized from 273x398..1048x578 to 64x64" in note for note in source.notes)


@pytest.mark.parametrize(("name", "channels"), [("kvasir-seg", 3), ("lungs", 1)])
def test_real_pairs(real_data: Path, tmp_path: Path, name: str, channels: int) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for path in sorted((real_data / name / part).iterdir())[:24]:
            (tmp_path / part / path.name).symlink_to(path)
    source = open_data(str(tmp_path))
    assert (source.data.channels, source.data.size, source.notes) == (channels, (224, 224), [])
    shares = source.data.read(range(24)).targets.float().mean((1, 2, 3))
    assert shares.min() > 0.001
    assert shares.max() < 0.9
