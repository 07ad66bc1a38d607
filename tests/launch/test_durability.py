"""Killed, stopped or out of disk at any moment, and started again: the release of an uninterrupted run, byte for byte."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.launch.jobs import contents, finish, start

FLAGS = ["--data", "phantom:seg:16:32", "--epochs", "20", "--width", "4", "--depth", "2", "--batch-size", "4"]


def argv(out: Path, *flags: str) -> list[str]:
    fixed = ["--seed", "7", "--threads", "1", "--device", "cpu", "--checkpoint-seconds", "0"]
    return ["protect", "--method", "umed", "--out", str(out), *FLAGS, *fixed, *flags]


def newest_step(out: Path) -> int:
    """The newest checkpoint of ``out``'s run."""
    found = sorted(out.with_name(f".{out.name}.run").glob("*/checkpoints/step-*.pt"))
    return int(found[-1].name.split(".")[0].removeprefix("step-")) if found else 0


def wait_for_step(out: Path, step: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while newest_step(out) < step:
        assert time.monotonic() < deadline, f"no step {step} within {seconds} s"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """An uninterrupted release, and the seconds it took from the start of its process."""
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    assert finish(start(argv(folder / "out"), folder / "output")) == 0, (folder / "output").read_text()
    return contents(folder / "out"), time.monotonic() - begun


def test_killed_at_random_moments(whole: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    expected, seconds = whole
    chance = random.Random(1)
    out, resumed = tmp_path / "out", 0
    # Kills at random steps of the fit, then one while the release is being written.
    for step in sorted(chance.sample(range(1, 75), 3)):
        process = start(argv(out), tmp_path / "output")
        wait_for_step(out, step)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        assert finish(process) == -signal.SIGKILL
        resumed += newest_step(out) > 0
        assert not out.exists()
    assert resumed == 3
    process = start(argv(out), tmp_path / "output")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.partial-*/images/3.png")) and process.is_alive():
        assert time.monotonic() < deadline
    process.kill()
    process.join()
    assert finish(start(argv(out), tmp_path / "output")) == 0
    assert contents(out) == expected
    assert [path.name for path in tmp_path.glob("out*")] == ["out", "output"] or len(list(tmp_path.glob("out*"))) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(
    whole: tuple[dict[str, bytes], float], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(argv(out, "--checkpoint-seconds", "1000"), tmp_path / "output")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.run/*/config.json")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.2)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert finish(process) == code, (tmp_path / "output").read_text()
    last = (tmp_path / "output").read_text().splitlines()[-1]
    assert last.startswith(f"medveil: stopped by {number.name} ")
    assert last.endswith("run the same command again to go on")
    assert not out.exists()
    assert newest_step(out) > 0
    assert finish(start(argv(out), tmp_path / "output")) == 0
    assert contents(out) == whole[0]


def test_a_disk_that_is_full_for_large_files(whole: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert finish(start(argv(out), tmp_path / "output", file_limit=20_000)) == 2
    last = (tmp_path / "output").read_text().splitlines()[-1]
    assert "free some space and run the same command again to go on" in last
    assert not list(tmp_path.glob("out.*"))
    assert not out.exists()
    assert finish(start(argv(out), tmp_path / "output")) == 0
    assert contents(out) == whole[0]
