"""Where things are written: only where the user said, beside nothing of theirs, and never into a release."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from medveil.launch.cli import main
from medveil.launch.running.runs import own
from tests.launch.hostile.common import masked_release, noise, npz_release, refused, save
from tests.launch.releases import write_manifest

PROTECT = ["protect", "--method", "random", "--threads", "1", "--seed", "1", "--data", "phantom:seg:4:16"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merging(folder: Path) -> list[str]:
    for name in ("r0", "r1"):
        write_manifest(folder / name, npz_release(folder / name, name == "r0"))
    return ["merge", str(folder / "r0"), str(folder / "r1")]


def auditing(folder: Path) -> list[str]:
    write_manifest(folder / "r", masked_release(folder / "r"))
    return ["audit", str(folder / "r"), "--test", "phantom:seg:4:16"]


NAMES = {
    "the root": "/",
    "here": ".",
    "above": "..",
    "nothing": "",
    "240 characters": "x" * 240,
    "300 characters": "x" * 300,
    "300 characters on the way": "x" * 300 + "/out",
    "200 characters of three bytes": "\N{EURO SIGN}" * 200,
    "an escape code": "out\x1b[2J",
    "a line end": "out\n",
    "a file on the way": "file/out",
    "a link to nothing": "dangling",
    "not UTF-8": os.fsdecode(b"out\xff"),
}


@pytest.mark.parametrize("command", ["protect", "merge", "audit"])
@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_a_name_that_cannot_be_written_is_refused(
    name: str, command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()
    (here / "dangling").symlink_to(here / "missing" / "place")
    argv = {"protect": lambda _: PROTECT, "merge": merging, "audit": auditing}[command](here)
    refused([*argv, "--out", name], here, capsys)


def test_a_report_of_such_a_name_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medveil.launch.report.records import write_record
    from tests.launch.hostile.test_records import record

    write_record(record(), here / "runs")
    (here / "file").touch()
    for name in (*NAMES.values(), "file"):
        if name not in ("", "dangling"):
            refused(["report", "runs", "--out", name], here, capsys)


@pytest.mark.parametrize("place", ["r", "r/audit", "r/images", "r/deep/deeper"])
def test_nothing_is_written_into_a_release(place: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medveil.launch.report.records import write_record
    from tests.launch.hostile.test_records import record

    audit = auditing(here)
    write_record(record(), here / "runs")
    refused([*audit, "--out", place], here, capsys, "release")
    refused(["report", "runs", "--out", place], here, capsys, "release")
    if place != "r":
        refused([*PROTECT, "--out", place], here, capsys, "release")


@pytest.mark.parametrize("out", ["data/out", "data/images/out", "data", "."])
def test_a_release_within_its_data_is_refused(out: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        save(here / "data" / "images" / f"{i}.png", noise(i))
        save(here / "data" / "masks" / f"{i}.png", np.full((16, 16), 255))
    refused(["protect", "--method", "random", "--data", "data", "--out", out], here, capsys, "--out")


def released(here: Path) -> Path:
    """The run directory of a small release called out."""
    assert main([*PROTECT, "--out", "out"]) == 0
    (note,) = (here / ".out.run").glob("*/done.json")
    return note.parent


NOTES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:10]),
    "a list": lambda path: path.write_bytes(b"[]"),
    "of other types": lambda path: path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_bytes()), "x"))),
    "nested": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("damage", NOTES.values(), ids=list(NOTES))
@pytest.mark.parametrize("name", ["chosen.json", "owner.json", "config.json", "release.json"])
def test_a_damaged_note_of_a_run_is_named(
    name: str, damage: Callable[[Path], object], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = released(here)
    path = run.parent / name if name == "chosen.json" else run / name
    damage(path)
    (run / "lock").unlink()  # which a refused start makes again
    main([*PROTECT, "--out", "out"])
    before = {path.name for path in here.iterdir()}
    capsys.readouterr()
    assert main([*PROTECT, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1
    assert {path.name for path in here.iterdir()} == before


@contextmanager
def at_work(root: Path) -> Iterator[None]:
    """Another process owns a run of other settings under ``root``."""
    begun, end = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with own(root, {"seed": 2}, "f"):
            os.write(begun[1], b"1")
            os.close(end[1])
            os.read(end[0], 1)
        os._exit(0)
    try:
        os.read(begun[0], 1)
        yield
    finally:
        for number in (*begun, *end):
            os.close(number)
        os.waitpid(child, 0)


def test_two_runs_of_one_out_do_not_meet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with at_work(here / ".out.run"):
        assert main([*PROTECT, "--out", "out"]) == 2
        error = capsys.readouterr().err
        assert "out is being written by another run" in error and error.count("\n") == 1
        assert [path.name for path in here.iterdir()] == [".out.run"]
    assert main([*PROTECT, "--out", "out"]) == 0


def test_a_hang_up_is_a_signal_like_others_unless_it_is_ignored(here: Path) -> None:
    from medveil.launch.running.processes import handling

    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have it ignored
    try:
        with handling(lambda number, _: heard.append(number)):
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with handling(lambda number, _: heard.append(number)):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == [signal.SIGHUP]
