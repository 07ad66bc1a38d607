"""Killed, stopped or out of disk, and started again: the release of an uninterrupted run, byte for byte."""

import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.launch.protecting import contents, finish, start

FLAGS = ["--data", "phantom:seg:12:16", "--epochs", "15", "--width", "4", "--depth", "2", "--batch-size", "4"]


class Whole(NamedTuple):
    files: dict[str, bytes]
    cpu_seconds: float


def argv(out: Path) -> list[str]:
    fixed = ["--seed", "7", "--threads", "1", "--device", "cpu", "--checkpoint-seconds", "0"]
    return ["protect", "--method", "umed", "--out", str(out), *FLAGS, *fixed]


def wait_for(folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} within a minute"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An uninterrupted release, and the CPU seconds that its process took."""
    folder = tmp_path_factory.mktemp("whole")
    for out in (folder / "first", folder / "out"):  # the first also waits for what is imported late
        assert finish(start(argv(out), folder / "output")) == 0, (folder / "output").read_text()
    assert contents(folder / "first") == contents(folder / "out")
    return Whole(contents(folder / "out"), float((folder / "output.cpu").read_text()))


def test_killed_at_random_moments(whole: Whole, tmp_path: Path) -> None:
    chance = random.Random(1)
    out = tmp_path / "out"
    ends = []
    for _ in range(3):
        moment = whole.cpu_seconds * chance.uniform(0.1, 0.7)
        ends.append(finish(start(argv(out), tmp_path / "output", cpu_seconds=moment)))
        # Between the last rename and its end a process may die too: then the release is whole.
        assert out.exists() or ends[-1] != 0
        assert not out.exists() or contents(out) == whole.files
    # A restart has less left to do, so a later kill may come too late; the first two do not.
    assert ends[:2] == [-signal.SIGPROF] * 2
    # Once more, among the files of the release.
    process = start(argv(out), tmp_path / "output")
    wait_for(tmp_path, "out*/images/3.png")
    process.kill()
    process.join()
    assert finish(start(argv(out), tmp_path / "output")) == 0
    assert contents(out) == whole.files
    assert {path.name for path in tmp_path.iterdir()} <= {".out.run", "out", "output", "output.cpu"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(whole: Whole, tmp_path: Path, number: signal.Signals, code: int) -> None:
    out = tmp_path / "out"
    process = start(argv(out), tmp_path / "output")
    wait_for(tmp_path, ".out.run/*/checkpoints/*.pt")
    assert process.pid is not None
    os.kill(process.pid, number)
    assert finish(process) == code, (tmp_path / "output").read_text()
    last = (tmp_path / "output").read_text().splitlines()[-1]
    assert last.startswith(f"medveil: stopped by {number.name} ")
    assert last.endswith("run the same command again to go on")
    assert not list(tmp_path.glob("out.*partial*"))
    assert not out.exists()
    assert finish(start(argv(out), tmp_path / "output")) == 0
    assert contents(out) == whole.files


def test_a_disk_that_is_full_for_large_files(whole: Whole, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert finish(start(argv(out), tmp_path / "output", file_limit=20_000)) == 2
    last = (tmp_path / "output").read_text().splitlines()[-1]
    assert "free some space and run the same command again to go on" in last
    assert {path.name for path in tmp_path.iterdir()} == {".out.run", "output", "output.cpu"}
    assert finish(start(argv(out), tmp_path / "output")) == 0
    assert contents(out) == whole.files
