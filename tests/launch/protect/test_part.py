"""Protecting some classes, a share, or a class beside another set's; putting such releases together; auditing parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.audit.plan import plan_audit
from medveil.launch.cli import main
from medveil.launch.data import open_data
from medveil.launch.protect.part import PartOptions, choose, class_numbers
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.merge import merge
from medveil.launch.release.originals import classes_of_part
from medveil.launch.release.private import PrivateManifest
from medveil.launch.report.mixed import draw_mixed
from medveil.launch.report.summary import summarise
from medveil.launch.results import CellResult
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.grid import Sweep, build
from medveil.launch.sweeping.plan import plan
from tests.launch.releases import both_manifests

CLASSES = 3


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Thirty colour images of three classes, nine to test on."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 30), ("test", 9)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % CLASSES).astype(np.uint8)[:, None]
    np.savez_compressed(tmp_path / "whole.npz", **arrays)
    return tmp_path / "whole.npz"


@pytest.fixture
def support(tmp_path: Path) -> Path:
    """A class-per-folder set of another size; "grey" holds grey images."""
    rng = np.random.default_rng(1)
    for name, channels in (("boats", 3), ("birds", 3), ("grey", 1)):
        (tmp_path / "natural" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (20, 24, 3)[: 2 + (channels == 3)], dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "natural" / name / f"{i}.png")
    return tmp_path / "natural"


def protect(data: Path, out: Path, *flags: str, method: str = "random") -> dict[str, Any]:
    command = ["protect", "--method", method, "--data", str(data), "--out", str(out), "--threads", "1", "--seed", "1"]
    assert main([*command, *flags]) == 0
    return both_manifests(out)


def changed(release: Path, original: Path) -> set[int]:
    """The training images whose saved bytes differ from the original's."""
    with np.load(release / original.name) as a, np.load(original) as b:
        assert all(np.array_equal(a[name], b[name]) for name in b.files if name != "train_images")
        return set(np.flatnonzero((a["train_images"] != b["train_images"]).any((1, 2, 3))).tolist())


def listed(manifest: dict[str, Any]) -> set[int]:
    return {int(r["id"].removeprefix("train/")) for r in manifest["samples"] if r["protected"]}


def test_only_the_chosen_classes_change(npz: Path, tmp_path: Path) -> None:
    manifest = protect(npz, tmp_path / "out", "--classes", "0,2")
    expected = {i for i in range(30) if i % CLASSES != 1}
    assert changed(tmp_path / "out", npz) == listed(manifest) == expected
    assert manifest["part"] == {"classes": ["0", "2"], "share": None}
    assert {r.get("reason") for r in manifest["samples"] if not r["protected"]} == {"not among those to protect"}
    assert manifest["totals"]["protected"] == 20


def test_a_share_is_nested_and_drawn_by_the_seed(npz: Path, tmp_path: Path) -> None:
    shares = {}
    for share in (0, 20, 60, 100):
        shares[share] = listed(protect(npz, tmp_path / f"s{share}", "--share", str(share)))
        assert changed(tmp_path / f"s{share}", npz) == shares[share]
        assert len(shares[share]) == 30 * share / 100
    assert shares[20] < shares[60]
    source = open_data(str(npz))
    other = choose(source, range(30), PartOptions(share=20), seed=2)
    assert set(other.indices) != shares[20]
    # A contributor fits on what is his, and knows nothing of the rest.
    assert list(other.fit.ids) == [source.data.ids[i] for i in other.indices]


def test_a_share_of_masked_images_keeps_the_others_unchanged(tmp_path: Path) -> None:
    manifest = protect(Path("phantom:seg:10:16"), tmp_path / "out", "--share", "40")
    assert (manifest["totals"]["samples"], manifest["totals"]["protected"], manifest["totals"]["dropped"]) == (10, 4, 0)


def test_a_part_of_the_release_is_audited_alone(npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    manifest = protect(npz, out, "--share", "60")
    parts = {part: plan_audit(out, str(npz), part=part) for part in ("all", "clean", "protected")}
    assert {name: len(one.train.open()) for name, one in parts.items()} == {"all": 30, "clean": 12, "protected": 18}
    protected = {int(i.removeprefix("train/")) for i in parts["protected"].train.open().ids}
    assert protected == listed(manifest)
    assert len({(one.test, one.clean) for one in parts.values()}) == 1
    flags = ["--exploiter", "resnet18", "--width", "2", "--iterations", "1", "--part", "clean", "--workers", "1"]
    assert main(["audit", str(out), "--original", str(npz), *flags]) == 0
    record = json.loads(next((tmp_path / "out.audit").glob("*/result.json")).read_text())
    assert (record["exploiter"]["model"], record["exploiter"]["part"]) == ("resnet18", "clean")
    protect(npz, tmp_path / "full")
    with pytest.raises(UserError, match=r"--part clean: .* has no such sample"):
        plan_audit(tmp_path / "full", part="clean")


@pytest.mark.parametrize("typed", ["ring", "1"])
def test_an_audit_tells_which_of_its_classes_are_protected(typed: str, tmp_path: Path) -> None:
    """By the number that the confusion matrix has: a folder numbers its classes by name, generated data does not."""
    out = tmp_path / "out"
    protect(Path("phantom:cls:24:16"), out, "--classes", typed)
    flags = ["--exploiter", "resnet18", "--width", "2", "--iterations", "1", "--workers", "1"]
    assert main(["audit", str(out), "--original", "phantom:cls:24:16", *flags]) == 0
    record = CellResult.load(next((tmp_path / "out.audit").glob("*/result.json")))
    assert str(record.options) == "eps=8/255 classes=ring"
    assert sorted(path.name for path in (out / "images").iterdir()).index("ring") == 2
    assert record.protected is not None
    assert record.protected.protected_classes == [2]
    assert record.clean is not None
    assert record.clean.protected_classes == []
    (picture,) = draw_mixed(summarise([record]), tmp_path)
    assert "the classes 2 are protected" in picture.caption


def test_only_releases_of_some_classes_have_them_marked(npz: Path, tmp_path: Path) -> None:
    for flags, expected in ((["--classes", "0,2"], [0, 2]), (["--share", "10"], []), ([], [])):
        out = tmp_path / f"out{len(flags)}{flags[-1:]}"
        protect(npz, out, *flags)
        assert (
            classes_of_part(open_data(str(out)), Manifest.read(out), PrivateManifest.needed(out, None, "")) == expected
        )


def test_support_classes_stand_in_for_the_others(npz: Path, support: Path) -> None:
    source = open_data(str(npz))
    options = PartOptions(classes=("2",), support=str(support), support_classes=("boats", "grey"))
    chosen = choose(source, range(30), options, seed=0)
    assert chosen.indices == list(range(2, 30, CLASSES))
    fit = chosen.fit
    assert (len(fit), fit.num_classes, fit.channels, fit.size) == (18, 3, 3, (16, 16))
    images, targets, ids = fit.read([17, 0, 9, 10])
    # Own samples come first and are class 2 here, behind the support's two; no image of classes 0 and 1 is read.
    assert ids == ["support/grey/3", "train/2", "train/29", "support/boats/0"]
    assert targets.tolist() == [1, 2, 2, 0]
    assert chosen.numbers == (-1, -1, 2)
    assert images[1].equal(source.data.read([2]).images[0])
    assert images[0, 0].equal(images[0, 2])
    assert images[0].float().std() > 10


def test_a_grey_contributor_takes_colour_as_support(support: Path) -> None:
    source = open_data("phantom:cls:12:16")
    chosen = choose(source, range(12), PartOptions(classes=("ring",), support=str(support)), seed=0)
    own = [i for i in range(12) if int(source.data.read([i]).targets[0]) == 1]
    assert chosen.indices == own
    assert chosen.fit.read([len(own)]).images.shape == (1, 1, 16, 16)


@pytest.mark.parametrize("method", ["salm", "lsp"])
def test_contributors_merge_their_classes(
    method: str, npz: Path, support: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--support", str(support)]
    tiny += ["--preset", "demo", "--width", "2", "--steps", "2"] if method == "salm" else []
    parts = [tmp_path / f"class{number}" for number in range(2)]
    for number, out in enumerate(parts):
        protect(npz, out, "--classes", str(number), *tiny, method=method)
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    manifest = both_manifests(tmp_path / "merged")
    expected = {i for i in range(30) if i % CLASSES != 2}
    assert changed(tmp_path / "merged", npz) == listed(manifest) == expected
    with np.load(tmp_path / "merged" / npz.name) as merged, np.load(parts[1] / npz.name) as second:
        assert np.array_equal(merged["train_images"][1::CLASSES], second["train_images"][1::CLASSES])
    totals = [both_manifests(part)["totals"] for part in parts]
    assert manifest["totals"]["psnr"] == pytest.approx(np.mean([one["psnr"] for one in totals]))
    assert len(plan_audit(tmp_path / "merged", str(npz), part="protected").train.open()) == 20
    with pytest.raises(UserError, match="train/0 is protected in"):
        merge([parts[0], tmp_path / "merged"], tmp_path / "twice")
    assert not list(tmp_path.glob("twice*"))


def test_a_folder_of_one_class_is_protected_alone_and_merged(support: Path, tmp_path: Path) -> None:
    for name in ("boats", "grey"):
        (tmp_path / f"{name}-only" / name).mkdir(parents=True)
        for path in (support / name).iterdir():
            path.rename(tmp_path / f"{name}-only" / name / path.name)
    with pytest.raises(UserError, match="a class alone is protected with --support"):
        open_data(str(tmp_path / "boats-only"))
    flags = ["--size", "16", "--support", "phantom:cls:12:16"]
    for name in ("boats", "grey"):
        protect(tmp_path / f"{name}-only", tmp_path / name, *flags)
    with pytest.raises(UserError, match="their channels is 3 and 1"):
        merge([tmp_path / "boats", tmp_path / "grey"], tmp_path / "merged")
    for path in (tmp_path / "grey-only" / "grey").iterdir():
        Image.open(path).convert("RGB").rotate(90, fillcolor=(9, 8, 7), expand=True).save(path)
        pixels = np.array(Image.open(path))
        pixels[..., 0] //= 2
        Image.fromarray(pixels).save(path)
    protect(tmp_path / "grey-only", tmp_path / "grey2", *flags)
    merge([tmp_path / "grey2", tmp_path / "boats"], tmp_path / "merged")
    manifest = Manifest.read(tmp_path / "merged")
    assert manifest.data.classes == ("boats", "grey")
    assert {(sample.id.split("/")[0], sample.target) for sample in manifest.samples} == {("boats", 0), ("grey", 1)}
    assert open_data(str(tmp_path / "merged")).class_names == ["boats", "grey"]


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("phantom:cls:12:16", PartOptions(classes=("round",)), "has no class 'round': .* 0 blob; 1 ring"),
        ("phantom:cls:12:16", PartOptions(support="phantom:cls:12:16"), "say with --classes which are own"),
        ("phantom:cls:12:16", PartOptions(support_classes=("a",)), "--support-classes goes with --support"),
        ("phantom:cls:12:16", PartOptions(("ring",), support="phantom:seg:8:16"), "--support .* is segmentation"),
        ("phantom:seg:8:16", PartOptions(classes=("1",)), "--classes is for sets with one class"),
    ],
)
def test_options_that_do_not_fit_are_refused(data: str, options: PartOptions, said: str) -> None:
    source = open_data(data)
    with pytest.raises(UserError, match=said):
        choose(source, range(len(source.data)), options, 0)


def test_classes_whose_names_differ_in_capitals_are_told_apart() -> None:
    names = ["Benign", "benign", "other"]
    found = [class_numbers([one], names, 3, "set", "--classes") for one in ("Benign", "benign", "OTHER")]
    assert found == [[0], [1], [2]]


def test_parts_are_options_of_a_sweeps_cells(tmp_path: Path) -> None:
    grid = {
        "data": "phantom:cls:40:16",
        "protectors": [
            {"method": "salm", "share": [20, 80]},
            {"method": "salm", "classes": "ring,1", "support": "NAT"},
        ],
        "exploiters": [{"model": "resnet18", "part": ["all", "clean"]}],
    }
    sweep = build(Sweep, {"name": "x", "grid": [grid], "folders": {"NAT": "/natural"}}, "x")
    planned = plan(sweep, SweepFolder(tmp_path))
    assert {cell.columns()[2] for cell, *_ in planned.cells} == {"share=20", "share=80", "classes=ring,1 support=NAT"}
    assert {cell.columns()[3] for cell, *_ in planned.cells} == {"resnet18", "resnet18 part=clean"}
    jobs = {job.key: job.work for job in planned.jobs}
    protects = [work.part for work in jobs.values() if hasattr(work, "method")]
    assert protects == [PartOptions(share=20), PartOptions(share=80), PartOptions(("ring", "1"), support="/natural")]
    # One training on clean images serves every part of every release.
    assert len({clean for _, _, clean, _ in planned.cells}) == 1
    assert {jobs[key].part for _, _, _, key in planned.cells if key} == {"all", "clean"}
    with pytest.raises(UserError, match="part 'some': choose from all, clean, protected"):
        plan(
            build(Sweep, {"name": "x", "grid": [{**grid, "exploiters": [{"model": "vgg11", "part": "some"}]}]}, "x"),
            SweepFolder(tmp_path),
        )
