"""What a release tells a stranger, and what only its private run knows."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.audit.plan import UNKNOWN, plan_audit
from medveil.launch.cli import main
from medveil.launch.release.merge import merge
from medveil.launch.release.private import PrivateManifest
from tests.launch.releases import both_manifests

HOSPITAL = "st-elsewhere-2024"


def two_classes(folder: Path, seed: int) -> Path:
    """Two classes of eight images of 24x20."""
    rng = np.random.default_rng(seed)
    for i in range(16):
        path = folder / ("cat" if i % 2 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(40, 200, (20, 24, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_classes(tmp_path_factory.mktemp("data") / HOSPITAL, 0)


def protect(data: Path, out: Path, *more: str) -> Path:
    settings = ["--method", "random", "--eps", "3/255", "--size", "16", "--device", "cpu", "--seed", "987654321"]
    assert main(["protect", "--data", str(data), "--out", str(out), *settings, *more]) == 0
    return out


def test_a_release_tells_nothing_of_what_was_done_to_it(classes: Path, tmp_path: Path) -> None:
    out = protect(classes, tmp_path / "out", "--classes", "cat", "--holdout", "0.25", "--licence", "CC BY-NC 4.0")
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file()).lower()
    for word in ("random", "eps", "levels", "budget", "seed", "987654321", "protected", "change", "reason", "method"):
        assert word.encode() not in everything, word
    for word in ("medveil", "torch", "held", "dropped", "psnr", HOSPITAL, str(classes), "source", "run"):
        assert word.encode().lower() not in everything, word
    assert b"cc by-nc 4.0" in everything
    held_out = both_manifests(out)["held_out"]
    assert len(held_out) == 4
    assert not any(sample.encode() in everything for sample in held_out)
    assert not [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".png", ".json")]


def test_without_its_run_a_release_is_audited_by_what_it_holds(classes: Path, tmp_path: Path) -> None:
    out = protect(classes, tmp_path / "out", "--classes", "cat", "--holdout", "0.25")
    told = plan_audit(out, str(classes), part="protected", size=16)
    assert (told.data, told.protector, str(told.options)) == (HOSPITAL, "random", "eps=3/255 classes=cat")
    assert len(told.train.open()) == 6
    elsewhere = shutil.move(tmp_path / ".out.run", tmp_path / "vault")
    with pytest.raises(UserError, match="no held-out images are known: give --run DIR"):
        plan_audit(out, str(classes), size=16)
    test = protect(two_classes(tmp_path / "more", 1), tmp_path / "test")
    with pytest.raises(UserError, match="which of its images are protected, as --part asks: give --run DIR"):
        plan_audit(out, None, str(test), part="protected")
    plan = plan_audit(out, None, str(test))
    assert (plan.data, plan.protector, str(plan.options)) == ("out", UNKNOWN, "")
    assert plan_audit(out, str(classes), part="protected", run=Path(elsewhere), size=16) == told
    with pytest.raises(UserError, match="has no private manifest of"):
        plan_audit(out, str(classes), run=tmp_path / ".test.run", size=16)


def test_an_audit_names_the_settings_that_were_given(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["--method", "pattern", "--pattern", "checkerboard", "--cell", "2", "--region", "roi", "--eps", "3/255"]
    assert main(["protect", "phantom:seg:8:16", "--out", str(out), "--seed", "0", "--device", "cpu", *settings]) == 0
    assert str(plan_audit(out, "phantom:seg:8:16").options) == "eps=3/255 region=roi pattern=checkerboard cell=2"


def test_a_merge_needs_the_private_manifests_and_writes_one(classes: Path, tmp_path: Path) -> None:
    parts = [protect(classes, tmp_path / name, "--classes", name) for name in ("cat", "dog")]
    runs = [Path(shutil.move(tmp_path / f".{name}.run", tmp_path / f"{name}-vault")) for name in ("cat", "dog")]
    with pytest.raises(UserError, match="cat does not tell which of its images are protected: give --run DIR"):
        merge(parts, tmp_path / "out")
    with pytest.raises(UserError, match="--run is given 1 times for 2 releases"):
        merge(parts, tmp_path / "out", runs[:1])
    with pytest.raises(UserError, match="has no private manifest of"):
        merge(parts, tmp_path / "out", runs[::-1])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.run").exists()
    totals = merge(parts, tmp_path / "out", runs)
    assert (totals.samples, totals.protected) == (16, 16)
    private = PrivateManifest.find(tmp_path / "out")
    assert private is not None
    assert private.protected == {f"{'cat' if i % 2 else 'dog'}/{i:02d}" for i in range(16)}
    assert (tmp_path / ".out.run").stat().st_mode & 0o777 == 0o700
    assert b"protected" not in (tmp_path / "out" / "manifest.json").read_bytes()
