"""Audits: what is trained and tested on, what is refused, and that a cut audit continues."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medveil.errors import UserError
from medveil.launch.audit.likeness import compare_images
from medveil.launch.audit.plan import plan_audit
from medveil.launch.audit.samples import Selection, open_alike
from medveil.launch.audit.train import ExploitJob, Place, run_exploit
from medveil.launch.cli import main
from medveil.launch.data import Source
from medveil.launch.exploiters.attacks.names import WORDS
from medveil.launch.jobs import trials
from medveil.launch.jobs.local import run_inline
from medveil.launch.results import CellResult
from medveil.launch.running.runtime import ProcessRuntime
from tests.launch.releases import manifest, write_manifest

SIDE = 16
QUICK = ["--epochs", "2", "--batch-size", "8", "--threads", "1", "--device", "cpu", "--workers", "1"]


def save(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def masked(tmp_path: Path) -> tuple[Path, Path]:
    """An original of 24 images with discs, and a release of 16 of them (changed by 2 levels), the rest held out."""
    original, release = tmp_path / "original", tmp_path / "release"
    generator = np.random.default_rng(0)
    samples, held_out = [], []
    row, column = np.mgrid[:SIDE, :SIDE]
    for i in range(24):
        x, y = generator.integers(5, SIDE - 5, 2)
        mask = (row - y) ** 2 + (column - x) ** 2 <= 16
        image = (generator.integers(40, 100, (SIDE, SIDE)) + 100 * mask).astype(np.uint8)
        name = f"img_{i:02d}"
        save(original / "images" / f"{name}.png", image)
        save(original / "masks" / f"{name}.png", (mask * 255).astype(np.uint8))
        if i % 3 == 0:
            held_out.append(name)
            continue
        record = {"id": name, "file": f"images/{name}.png", "mask": f"masks/{name}.png"}
        record["sha256"] = save(release / record["file"], image + 2)
        record["mask_sha256"] = save(release / record["mask"], (mask * 255).astype(np.uint8))
        samples.append(record)
    write_manifest(release, manifest(samples, "segmentation", "segmentation-folder", held_out=held_out))
    return original, release


@pytest.fixture
def npz(tmp_path: Path) -> tuple[Path, Path]:
    """An npz of two classes, of which one test image is a copy of a training image, and its release."""
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 20), ("val", 4), ("test", 9)):
        arrays[f"{split}_images"] = generator.integers(0, 200, (count, SIDE, SIDE), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    arrays["test_images"][4] = arrays["train_images"][7]
    original, release = tmp_path / "twins.npz", tmp_path / "release"
    np.savez(original, **arrays)  # type: ignore[arg-type]
    release.mkdir()
    arrays["train_images"] = arrays["train_images"] + 3
    np.savez(release / "twins.npz", **arrays)  # type: ignore[arg-type]
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in arrays["train_images"]]
    records: list[dict[str, Any]] = [
        {"id": f"train/{i}", "file": "twins.npz", "sha256": digest, "target": i % 2, "protected": True}
        for i, digest in enumerate(hashes)
    ]
    digest = hashlib.sha256((release / "twins.npz").read_bytes()).hexdigest()
    write_manifest(release, manifest(records, "classification", "npz", npz_sha256=digest))
    return original, release


def audit(*arguments: str | Path) -> int:
    return main(["audit", *QUICK, *map(str, arguments)])


def test_segmentation_end_to_end(masked: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    original, release = masked
    chosen = ["--attacks", "none,blur+jpeg60", "--seeds", "0,1", "--width", "2"]
    assert audit(release, "--original", original, *chosen) == 0
    out = release.with_name("release.audit")
    cells = [CellResult.load(path) for path in sorted(out.rglob("result.json"))]
    assert {(c.model, c.attack, c.seed) for c in cells} == {
        ("unet", attack, seed) for attack in ("none", "blur+jpeg60") for seed in (0, 1)
    }
    for cell in cells:
        assert (cell.data, cell.protector, str(cell.options), cell.status) == ("discs", "umed", "eps=4/255", "done")
        assert cell.clean is not None
        assert cell.protected is not None
        assert set(cell.clean.inside) == {"dsc", "dsc_pooled", "jaccard", "jaccard_pooled"}
        assert set(cell.protected.last) == {*cell.clean.inside, "hd95"}
        assert len(cell.protected.curve) == 2
        assert cell.psnr == pytest.approx(42.11, abs=0.01)
        with np.load(out / cell.folder_name / str(cell.pictures)) as pictures:
            assert pictures["original"].shape == (5, SIDE, SIDE, 1) == pictures["protected"].shape
            assert bool((pictures["protected"] == pictures["original"] + 2).all())
    assert (out.stat().st_mode & 0o777, (out / "runs").stat().st_mode & 0o777) == (0o700, 0o700)
    printed = capsys.readouterr().out
    assert "16 images of 16x16" in printed
    assert "8 clean test images" in printed
    assert "±" in printed
    assert "PSNR 42.11 dB" in printed


def test_audits_of_two_releases_in_one_folder_share_originals_and_keep_their_own_pictures(
    masked: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, release = masked
    stronger = shutil.copytree(release, tmp_path / "stronger")
    values = json.loads((stronger / "manifest.json").read_text())
    for record in values["samples"]:
        pixels = np.asarray(Image.open(original / record["file"]))
        record["sha256"] = save(stronger / record["file"], pixels + 4)
    write_manifest(stronger, values)
    out = tmp_path / "both"
    for one in (release, stronger):
        assert audit(one, "--original", original, "--out", out, "--width", "4") == 0
    assert "1 of them were done before" in capsys.readouterr().out
    changes = {}
    for path in out.rglob("result.json"):
        cell = CellResult.load(path)
        with np.load(path.parent / str(cell.pictures)) as pictures:
            changes[cell.release_name] = int((pictures["protected"] - pictures["original"]).max())
    assert changes == {"release": 2, "stronger": 4}


def test_without_original_the_held_out_need_a_home(
    masked: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, release = masked
    assert audit(release) == 2
    assert "--original" in capsys.readouterr().err
    test = tmp_path / "test"
    for i in range(0, 24, 3):
        for kind in ("images", "masks"):
            (test / kind).mkdir(parents=True, exist_ok=True)
            name = f"img_{i:02d}.png"
            (test / kind / name).write_bytes((original / kind / name).read_bytes())
    assert audit(release, "--test", test, "--out", tmp_path / "out") == 0
    cell = CellResult.load(next((tmp_path / "out").glob("unet-none-0-*/result.json")))
    assert (cell.clean, cell.psnr, cell.pictures) == (None, None, None)
    assert "no clean row" in capsys.readouterr().out


def test_npz_end_to_end(npz: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, release = npz
    out = tmp_path / "out"
    assert audit(release, "--original", original, "--out", out, "--width", "4", "--learning-rate", "0.01") == 0
    cell = CellResult.load(next(out.glob("resnet18-none-0-*/result.json")))
    assert cell.protected is not None
    assert set(cell.protected.last) == {"accuracy", "balanced_accuracy", "auc"}
    assert cell.protected.last != cell.protected.inside
    assert "1 of 9 test images are exact copies" in capsys.readouterr().out


def test_test_images_that_were_trained_on_are_refused(masked: tuple[Path, Path]) -> None:
    original, release = masked
    with pytest.raises(UserError, match=r"16 test images.*img_01"):
        plan_audit(release, str(original), str(original))
    renamed = original.with_name("renamed")
    for kind in ("images", "masks"):
        (renamed / kind).mkdir(parents=True)
        for i in range(4):
            (renamed / kind / f"other{i}.png").write_bytes((original / kind / f"img_{i:02d}.png").read_bytes())
    with pytest.raises(UserError, match=r"2 test images.*other1"):
        plan_audit(release, str(original), str(renamed))
    # Without the original nothing shows that these were trained on, but exact copies of released images are seen.
    assert plan_audit(release, None, str(renamed)).test.spec == str(renamed)
    (renamed / "images" / "other3.png").write_bytes((release / "images" / "img_04.png").read_bytes())
    with pytest.raises(UserError, match=r"1 test images.*other3"):
        plan_audit(release, None, str(renamed))


def _edit(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda release: _edit(release / "images" / "img_01.png"), "img_01.png is not as"),
        (lambda release: (release / "masks" / "img_02.png").unlink(), "img_02.png is not as"),
        (lambda release: save(release / "images" / "new.png", np.zeros((4, 4), np.uint8)), "not listed"),
        (lambda release: (release / "manifest.json").write_text('{"method": "umed"}'), "not the manifest"),
    ],
)
def test_a_damaged_release_is_refused(
    masked: tuple[Path, Path], damage: Callable[[Path], Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original, release = masked
    damage(release)
    assert audit(release, "--original", original) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_damaged_npz_is_refused(npz: tuple[Path, Path]) -> None:
    original, release = npz
    with np.load(release / "twins.npz") as file:
        arrays = dict(file)
    arrays["train_images"][3, 0, 0] ^= 1
    np.savez(release / "twins.npz", **arrays)
    with pytest.raises(UserError, match=r"twins.npz is not as"):
        plan_audit(release, str(original))


def test_another_original_is_refused(masked: tuple[Path, Path], tmp_path: Path) -> None:
    _, release = masked
    with pytest.raises(UserError, match="img_01"):
        plan_audit(release, "phantom:seg:8")
    with pytest.raises(UserError, match="does not exist"):
        plan_audit(release, str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--exploiter", "resnet18"], "not a model for segmentation"),
        (["--attacks", "blurr"], "blurr"),
        (["--seeds", "a"], "--seeds"),
        (["--width", "-1"], "width"),
        (["--exploiter", "smp:unet:resnet18", "--width", "8"], "--width"),
    ],
)
def test_wrong_flags_are_told(
    masked: tuple[Path, Path], flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original, release = masked
    assert audit(release, "--original", original, *flags) == 2
    assert says in capsys.readouterr().err
    assert not release.with_name("release.audit").exists()


def test_classes_are_matched_by_name() -> None:
    """A folder numbers its classes by name, the generated set does not."""

    class Named(Selection):
        @property
        def source(self) -> Source:
            return replace(super().source, class_names=["blob", "cross", "ring", "stripes"])

    plain, train = Selection("phantom:cls:8", "test"), Named("phantom:cls:8")
    before, after = plain.open().read(range(4)).targets, open_alike(plain, train).read(range(4)).targets
    names, ordered = plain.source.class_names, train.source.class_names
    assert names is not None
    assert ordered is not None
    assert [names[i] for i in before] == [ordered[i] for i in after]
    assert names != ordered


def test_a_cut_training_continues_and_a_finished_one_is_not_repeated(
    masked: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, release = masked
    options = {"width": 4, "epochs": 4, "batch_size": 4}
    place = Place(tmp_path / "whole", device="cpu", threads=1, checkpoint_seconds=0, quiet=True)
    job = ExploitJob(place, release=release, original=str(original), options=options, attack="jpeg30")
    job = pickle.loads(pickle.dumps(job))
    whole = run_exploit(job)
    cut = replace(job, place=replace(place, runs=tmp_path / "cut"))
    steps: list[int] = []
    step = ProcessRuntime.step

    def cutting(self: ProcessRuntime, done: int, total: int, *rest: Any, **metrics: Any) -> None:
        step(self, done, total, *rest, **metrics)
        steps.append(done)
        if len(steps) in (3, 9):
            raise MemoryError

    monkeypatch.setattr(ProcessRuntime, "step", cutting)
    for _ in range(2):
        with pytest.raises(MemoryError):
            run_exploit(cut)
    resumed = run_exploit(cut)
    assert steps == list(range(1, 17))
    assert replace(resumed, seconds=0.0) == replace(whole, seconds=0.0)
    assert run_exploit(cut) == resumed
    assert len(steps) == 16


def test_clean_jobs(masked: tuple[Path, Path], tmp_path: Path) -> None:
    original, release = masked
    common: dict[str, Any] = {"original": str(original), "options": {"width": 4, "epochs": 1}}

    def place(name: str) -> Place:
        return Place(tmp_path / name, device="cpu", threads=1)

    like = run_exploit(ExploitJob(place=place("a"), like=release, **common))
    held = run_exploit(ExploitJob(place=place("b"), holdout=0.25, size=SIDE, **common))
    assert "dsc" in like.last
    assert "dsc" in held.last
    with pytest.raises(UserError, match="no test part"):
        run_exploit(ExploitJob(place=place("c"), size=SIDE, **common))


def test_images_are_compared_with_their_own_originals(masked: tuple[Path, Path], tmp_path: Path) -> None:
    original, release = masked
    psnr, ssim, pictures, alike, roi_psnr = compare_images(release, str(original), None, tmp_path / "pictures.npz")
    assert psnr == roi_psnr == pytest.approx(20 * np.log10(255 / 2))
    assert 0.99 < ssim < 1
    assert pictures.stat().st_mode & 0o777 == 0o600
    assert alike["psnr"] == pytest.approx(psnr) and alike["ssim"] == pytest.approx(ssim)
    # Two levels more everywhere: every level still tells the other.
    assert alike["nmi"] == pytest.approx(1)


@pytest.fixture
def foreign(masked: tuple[Path, Path]) -> tuple[Path, Path]:
    """The original, and 16 of its images changed by 3 levels as somebody else would leave them: a flat folder."""
    original, release = masked
    folder = release.with_name("elsewhere")
    for path in sorted((release / "images").iterdir()):
        save(folder / path.name, np.array(Image.open(path)) + 1)
    return original, folder


def test_images_of_others_are_audited_with_the_labels_of_their_originals(
    foreign: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    original, folder = foreign
    plan = plan_audit(folder, str(original))
    data = plan.train.open()
    assert plan.clean is not None
    assert torch.equal(data.read(range(16)).targets, plan.clean.open().read(range(16)).targets)
    assert torch.equal(data.read(range(16)).images, plan.clean.open().read(range(16)).images + 3)
    assert audit(folder, "--original", original, "--width", "2", "--attacks", "none,blur+mix25") == 0
    printed = capsys.readouterr().out
    assert "16 of its images pair by name" in printed
    assert "tested on the 8 images" in printed
    assert "PSNR 38.59 dB" in printed
    cells = [CellResult.load(path) for path in folder.with_name("elsewhere.audit").rglob("result.json")]
    assert {(cell.data, cell.protector, cell.attack) for cell in cells} == {
        ("original", "elsewhere", "none"),
        ("original", "elsewhere", "blur+mix25"),
    }


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder, _: save(folder / "stranger.png", np.zeros((SIDE, SIDE), np.uint8)), "no original of its name"),
        (lambda folder, _: save(folder / "img_01.png", np.zeros((SIDE, 2 * SIDE), np.uint8)), "give --size"),
        (lambda folder, _: save(folder / "more" / "img_01.png", np.zeros((SIDE, SIDE), np.uint8)), "both pair with"),
        (lambda folder, original: shutil.copytree(original / "images", folder, dirs_exist_ok=True), "give --test"),
        (lambda folder, _: [path.unlink() for path in folder.iterdir()], "nothing to audit"),
        (lambda folder, _: shutil.rmtree(folder), "does not exist: name a release"),
    ],
)
def test_images_of_others_that_do_not_pair_are_told(
    foreign: tuple[Path, Path], damage: Callable[[Path, Path], Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original, folder = foreign
    damage(folder, original)
    assert audit(folder, "--original", original) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_an_npz_of_others_pairs_by_id(npz: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    original, release = npz
    (release / "manifest.json").unlink()
    assert audit(release, "--original", original, "--width", "4", "--learning-rate", "0.01") == 0
    assert "20 of its images pair" in capsys.readouterr().out
    with np.load(original) as file:
        fewer = {name: values[:10] if name.startswith("train") else values for name, values in file.items()}
    np.savez(original, **fewer)
    assert audit(release, "--original", original) == 2
    assert "do not pair" in capsys.readouterr().err


def test_standard_tries_every_attack_and_the_worst_three_again(
    masked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The originals are trained on once; what is out of reach is skipped; a second audit does only what is new."""
    original, release = masked
    short = ["none", "blur", "grey", "bits3", "mix20", "pretrained"]
    monkeypatch.setitem(WORDS, "standard", short)
    flags = ["--original", original, "--width", "2", "--learning-rate", "0.02", "--epochs", "1"]
    assert audit(release, *flags, "--attacks", "standard") == 0
    out = release.with_name("release.audit")
    cells = [CellResult.load(path) for path in sorted(out.rglob("result.json"))]
    first = {cell.attack: cell for cell in cells if cell.seed == 0}
    assert set(first) == set(short)
    assert (first["grey"].status, first["pretrained"].status) == ("skipped: the images are grey", "skipped: no weights")
    reached = {name: cell.protected.last["dsc"] for name, cell in first.items() if cell.protected}
    again = {attack: [cell.seed for cell in cells if cell.attack == attack and cell.seed] for attack in reached}
    worst = {attack for attack, seeds in again.items() if sorted(seeds) == [1, 2]}
    assert len(worst) == 3
    assert min(reached[attack] for attack in worst) >= max(reached[attack] for attack in set(reached) - worst)
    assert {cell.attack for cell in cells if cell.clean and not cell.seed} == {"none"}
    printed = capsys.readouterr().out
    assert "about a minute, the worst 3 with 2 more seeds among them" in printed
    assert "worst case of 4 attacks on unet width=2" in printed
    trained = len(list((out / "runs").glob("*/done.json")))
    assert audit(release, *flags, "--attacks", "none,blur,bits3,mix20,median", "--seeds", "0") == 0
    # The new attack on the release, and on the originals every attack but none.
    assert len(list((out / "runs").glob("*/done.json"))) == trained + 1 + 4
    # So do more threads, which change no more than another processor would.
    assert audit(release, *flags, "--attacks", "none,blur", "--seeds", "0", "--threads", "3") == 0
    assert len(list((out / "runs").glob("*/done.json"))) == trained + 1 + 4


@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        ("pretrained", "no weights"),
        ("purify10", "16 images are too few to leak 10 pairs"),
        ("grey", "the images are grey"),
    ],
)
def test_an_attack_out_of_reach_is_refused_by_its_name(
    masked: tuple[Path, Path], attacks: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original, release = masked
    assert audit(release, "--original", original, "--attacks", attacks) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_trainings_as_jobs_are_those_in_turn(
    masked: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What worker processes are given is done here in their place: to start them takes longer than to train."""
    original, release = masked
    monkeypatch.setattr(trials, "run_side_by_side", lambda jobs, _, listen: run_inline(jobs, listen))
    results = []
    for workers in ("1", "2"):
        out = release.with_name(f"out{workers}")
        flags = ["--original", original, "--width", "2", "--attacks", "blur", "--out", out, "--workers", workers]
        assert audit(release, *flags) == 0
        assert ("[2/2] unet on" in capsys.readouterr().out) == (workers == "2")
        cell = CellResult.load(next(out.glob("unet-blur-0-*/result.json")))
        assert cell.clean is not None
        assert cell.protected is not None
        results.append((cell.clean.curve, cell.clean.last, cell.protected.curve, cell.protected.last))
    assert results[0] == results[1]
