import errno
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medveil.errors import UserError
from medveil.launch.cli import main
from medveil.launch.protect.job import ProtectJob, run_protect
from medveil.launch.protect.methods import METHODS
from medveil.launch.running import runs
from tests.launch.protecting import contents
from tests.launch.releases import both_manifests

DATA = "phantom:seg:10:16"


def protect(out: Path, *flags: str, data: str = DATA, method: str = "random") -> int:
    return main(["protect", "--method", method, "--data", data, "--out", str(out), "--threads", "1", *flags])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr: one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


def test_a_finished_release_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert protect(tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "10 of 10 released images are protected" in output
    assert "private run, not to be published" in output
    before = contents(tmp_path)
    assert protect(tmp_path / "out", "--processes", "1", "--device", "cpu") == 0
    assert "already done" in capsys.readouterr().out
    after = contents(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {
        name for name in after if name.endswith("owner.json")
    }


def test_an_output_of_other_origin_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert protect(tmp_path / "out") == 0
    capsys.readouterr()
    before = contents(tmp_path / "out")
    for flags in (["--eps", "5/255"], ["--seed", "4"], ["--holdout", "0.2"], ["--licence", "no training"]):
        assert protect(tmp_path / "out", *flags) == 2
        assert "does not come from this data and these settings" in said(capsys)
    assert contents(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    assert protect(tmp_path / "mine") == 2
    assert "choose another --out" in said(capsys)
    assert not (tmp_path / ".mine.run").exists()
    (tmp_path / "out" / "images" / "3.png").write_bytes(b"edited")
    assert protect(tmp_path / "out") == 2
    assert "3.png was changed after the release was written" in said(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "0"], "--eps: must be between 1/255 and 1, not 0"),
        (["--eps", "4/0"], "--eps: '4/0' is not a number or a fraction"),
        (["--region", "edge"], "--region: 'edge' is none of auto, image"),
        (["--steps", "10"], "unrecognized arguments: --steps"),
        (["--seed", "x"], "--seed"),
        (["--threads", "0"], "--threads: must be between 1 and 1024, not 0"),
        (["--processes", "0"], "--processes: must be at least 1, not 0"),
        (["--holdout", "1.5"], "--holdout: must be at least 0 and below 1, not 1.5"),
        (["--splits", "train,val"], "has no splits"),
        (["--method", "salm"], "is a segmentation set, which salm cannot protect"),
        (["--data", "/nowhere"], "/nowhere does not exist"),
        (["--method", "unknown"], "no method is called 'unknown'"),
        (["--attacks", "full"], "--attacks goes with --target"),
        (["--effort", "quick"], "--effort goes with --target"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert protect(tmp_path / "out", *flags) == 2
    assert message in said(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert protect(tmp_path / "file" / "out") == 2
    assert f"{tmp_path / 'file'} is not a folder" in said(capsys)
    assert protect(Path("/proc/out")) == 2
    assert "/proc" in said(capsys)


def test_the_secret_seed_stays_in_the_private_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        assert protect(tmp_path / name) == 0
    output = capsys.readouterr()
    kept = tmp_path / ".a.run" / "chosen.json"
    seed = json.loads(kept.read_text())["seed"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    run = next(kept.parent.glob("*/config.json")).parent
    secrets = [str(seed), f"{seed:x}", run.name]
    for name, content in contents(tmp_path / "a").items():
        assert not any(secret.encode() in content for secret in secrets), name
    assert not any(secret in output.out + output.err for secret in secrets)
    assert str(seed) in (run / "config.json").read_text()
    assert contents(tmp_path / "a")["images/0.png"] != contents(tmp_path / "b")["images/0.png"]
    # The same seed gives the same bytes wherever it is written.
    assert protect(tmp_path / "c", "--seed", str(seed)) == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "a")


def test_held_out_samples_are_listed_and_not_released(tmp_path: Path) -> None:
    assert protect(tmp_path / "out", "--holdout", "0.2") == 0
    manifest = both_manifests(tmp_path / "out")
    ids = [sample["id"] for sample in manifest["samples"]]
    assert len(ids) == 8
    assert sorted(ids + manifest["held_out"]) == sorted(f"phantom/{i}" for i in range(10))


def test_an_npz_is_neither_cut_nor_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes: dict[str, Any] = {"images": (6, 8, 8), "labels": (6, 1)}
    arrays = {f"{s}_{n}": np.arange(np.prod(shape)) % 2 for s in ("train", "test") for n, shape in shapes.items()}
    np.savez(tmp_path / "x.npz", **{n: a.astype(np.uint8).reshape(shapes[n.split("_")[1]]) for n, a in arrays.items()})
    for flags in (["--holdout", "0.2"], ["--empty", "drop"]):
        assert protect(tmp_path / "out", *flags, data=str(tmp_path / "x.npz")) == 2
        assert f"{flags[0]} " in said(capsys)
    assert protect(tmp_path / "out", data=str(tmp_path / "x.npz")) == 0
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "x.npz"]


def test_a_full_disk_leaves_no_release_and_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert protect(tmp_path / "whole", "--seed", "1") == 0
    real, left = runs.os.fsync, 12

    def fsync(file: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    capsys.readouterr()
    monkeypatch.setattr(runs.os, "fsync", fsync)
    assert protect(tmp_path / "out", "--seed", "1") == 2
    assert "No space left on device" in (line := said(capsys))
    assert "run the same command again to go on" in line
    assert not list(tmp_path.glob("out*"))
    monkeypatch.undo()
    assert protect(tmp_path / "out", "--seed", "1") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_every_method_has_its_settings_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for name, flag in (("umed", "--band-side"), ("salm", "--pgd-steps")):
        with pytest.raises(SystemExit) as end:
            main(["protect", "--method", name, "--help"])
        assert end.value.code == 0
        assert flag in capsys.readouterr().out


@pytest.mark.parametrize("method", ["umed", "salm", "em", "random", "none"])
def test_the_methods_make_verified_releases(method: str, tmp_path: Path) -> None:
    small = {"umed": {"epochs": 5, "width": 4, "depth": 2}, "random": {}, "none": {}}
    options = small.get(method, {"steps": 2, "width": 4, "transforms": 1, "pgd_steps": 2})
    data = DATA if method == "umed" else "phantom:cls:8:16"
    job = ProtectJob(method, data, tmp_path / "out", options, preset="cpu", seed=2, threads=1, device="cpu", quiet=True)
    assert run_protect(job) == tmp_path / "out"
    totals = both_manifests(tmp_path / "out")["totals"]
    assert totals["protected"] == (0 if method == "none" else totals["samples"])
    with pytest.raises(UserError, match="has no option"):
        run_protect(ProtectJob(method, data, tmp_path / "other", {"nonsense": 1}))


def test_a_preset_is_under_the_options(tmp_path: Path) -> None:
    job = ProtectJob("umed", DATA, tmp_path / "out", {"epochs": 1, "depth": 2}, "cpu", threads=1, quiet=True, seed=0)
    run_protect(job)
    config = json.loads(next(job.run_root.glob("*/config.json")).read_text())["config"]
    assert config["options"]["width"] == METHODS["umed"].presets["cpu"]["width"]
    assert config["options"]["epochs"] == 1


@pytest.fixture(autouse=True)
def threads_stay() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
