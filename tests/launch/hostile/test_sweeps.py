"""Sweep files, and what a sweep left, that are not what they should be."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medveil.errors import UserError
from medveil.launch.audit.plan import plan_audit
from medveil.launch.cli import main
from medveil.launch.jobs.job import Job
from medveil.launch.protect.config import ProtectJob
from tests.launch.hostile.common import noise, refused, save
from tests.launch.hostile.test_data import masked

GRID = "grid: [{data: 'phantom:cls:8:16', protectors: [random], exploiters: [resnet18]}]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(**changes: str) -> bytes:
    values = {"data": "'phantom:cls:8:16'", "protectors": "[random]", "exploiters": "[resnet18]", **changes}
    return f"grid: [{{{', '.join(f'{key}: {value}' for key, value in values.items())}}}]".encode()


SWEEPS: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b"name: \xff\xfe\n",
    "a list": b"[1, 2]",
    "a number": b"7",
    "no YAML": b"grid: [",
    "a Python object": b"!!python/object/apply:os.system [id]",
    "a control code": b"name: 'a\x00b'\n",
    "nested": b"[" * 1000,
    "no grid": b"name: x",
    "an empty grid": b"grid: []",
    "a grid of names": b"grid: [a, b]",
    "unknown keys": GRID.encode() + b"speed: fast\n",
    "seeds of names": GRID.encode() + b"seeds: [a]\n",
    "no seeds": GRID.encode() + b"seeds: []\n",
    "workers below 0": GRID.encode() + b"workers: -1\n",
    "no threads": GRID.encode() + b"threads: 0\n",
    "checkpoints at no number": GRID.encode() + b"checkpoint_seconds: .nan\n",
    "a name of 300 characters": GRID.encode() + b"name: " + b"x" * 300,
    "a name with NUL": GRID.encode() + b'name: "a\\0b"\n',
    "a name with an escape": GRID.encode() + b'name: "a\\e[2J"\n',
    "a name that leads away": GRID.encode() + b"name: ../x\n",
    "slurm as a list": GRID.encode() + b"slurm: [a]\n",
    "folders as a list": GRID.encode() + b"folders: [a]\n",
    "presets as a name": GRID.encode() + b"presets: cpu\n",
    "a mapping for a method": grid(protectors="[{method: {a: 1}}]"),
    "a list of mappings for a method": grid(protectors="[{method: [{a: 1}]}]"),
    "a number for a method": grid(protectors="[3]"),
    "an unknown method": grid(protectors="[nothing]"),
    "a mapping for a preset": grid(protectors="[{method: random, preset: {a: 1}}]"),
    "a list for classes": grid(protectors="[{method: random, classes: [[1, 2]]}]"),
    "a mapping for a setting": grid(protectors="[{method: random, eps: {a: 1}}]"),
    "a setting that is none": grid(protectors="[{method: random, speed: 3}]"),
    "keys that are no names": grid(protectors="[{method: random, 3: 4}]"),
    "a mapping for a model": grid(exploiters="[{model: {a: 1}}]"),
    "a number for a model": grid(exploiters="[{model: 3}]"),
    "an unknown model": grid(exploiters="[nothing]"),
    "an unknown part": grid(exploiters="[{model: resnet18, part: some}]"),
    "a list for a part": grid(exploiters="[{model: resnet18, part: [[all]]}]"),
    "a mapping for data": grid(data="{a: 1}"),
    "no data": grid(data="[]"),
    "no protectors": grid(protectors="[]"),
    "attacks that are none": grid(attacks="[nothing]"),
    "a mapping for attacks": grid(attacks="{a: 1}"),
}


@pytest.mark.parametrize("content", SWEEPS.values(), ids=list(SWEEPS))
def test_a_sweep_that_is_none_is_refused(content: bytes, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "s.yaml").write_bytes(content)
    refused(["sweep", "s.yaml", "--dry-run"], here, capsys)


def test_the_sound_sweep_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "s.yaml").write_bytes(grid())
    assert main(["sweep", "s.yaml", "--dry-run"]) == 0


FILES: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", FILES.values(), ids=list(FILES))
def test_a_file_in_a_sweeps_place_is_refused(
    make: Callable[[Path], object], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(here / "s.yaml")
    refused(["sweep", "s.yaml", "--dry-run"], here, capsys, "s.yaml")


KEPT: dict[str, Callable[[Path], object]] = {
    **{name: FILES[name] for name in ("a folder", "a pipe", "a device")},
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(b'{"name": "s", "gr'),
    "a list": lambda path: path.write_bytes(b"[]"),
    "nested": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "another thing": lambda path: path.write_bytes(b'{"name": 3}'),
}


@pytest.mark.parametrize("make", KEPT.values(), ids=list(KEPT))
def test_what_a_sweep_left_is_named_when_it_is_damaged(
    make: Callable[[Path], object], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "s").mkdir()
    make(here / "s" / "sweep.json")
    refused(["sweep", "status", "s"], here, capsys, "sweep.json")
    job = Job("key", "a job", ProtectJob("random", "phantom:seg:4:16", here / "out"), here)
    for path in (here / "key.json", job.attempt_path):
        make(path)
    for read in (job.read, job.attempt):
        with pytest.raises(UserError, match=r"key\..*json"):
            read()


def test_flags_that_are_no_numbers_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protect = ["protect", "--method", "random", "--data", "phantom:seg:4:16", "--out", "out"]
    for flag, value in (
        ("--checkpoint-seconds", "nan"),
        ("--checkpoint-seconds", "-1"),
        ("--holdout", "nan"),
        ("--holdout", "inf"),
        ("--size", "0"),
        ("--size", "1e9"),
        ("--threads", "0"),
        ("--processes", "-1"),
        ("--shards", "0"),
        ("--seed", "x"),
        ("--share", "nan"),
        ("--eps", "nan"),
        ("--eps", "1/0"),
        ("--preset", "huge"),
        ("--empty", "keep"),
    ):
        refused([*protect, flag, value], here, capsys, flag.strip("-").replace("-", "_")[:4])
    (here / "s.yaml").write_bytes(grid())
    for flag, value in (("--workers", "-1"), ("--threads", "0"), ("--seeds", "a"), ("--wait-minutes", "nan")):
        refused(["sweep", "s.yaml", "--dry-run", flag, value], here, capsys)


def test_depths_that_fill_the_memory_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "phantom:seg:4:16", "--out", "out"]
    refused(["protect", "--method", "umed", *data, "--depth", "20"], here, capsys, "depth")
    refused(["protect", "--method", "veil", *data, "--depth", "20"], here, capsys, "depth")


def test_originals_of_released_images_are_no_test(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masked(here / "data", 8)
    protect = ["protect", "--method", "random", "--data", "data", "--holdout", "0.25", "--out", "out", "--seed", "1"]
    assert main([*protect, "--threads", "1", "--size", "16"]) == 0
    refused(["audit", "out", "--test", "data"], here, capsys, "6 test images of data are the originals of released")
    # Others of the same names are as good as any.
    for i in range(8):
        save(here / "data" / "images" / f"{i}.png", noise(100 + i))
    plan = plan_audit(here / "out", test="data")
    assert (len(plan.train.open()), len(plan.test.open())) == (6, 8)
