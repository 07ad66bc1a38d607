import errno
import multiprocessing
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medveil.errors import UserError
from medveil.launch.running import runs
from medveil.launch.running.files import drawn_once, write_private
from medveil.launch.running.runs import OwnershipLost, own, run_name


@dataclass(frozen=True)
class Drawn:
    seed: int


CONFIG = {"method": "umed", "options": {"eps": 4 / 255, "epochs": 3}}


def test_the_name_is_a_function_of_configuration_and_data_alone(tmp_path: Path) -> None:
    name = run_name(CONFIG, "f" * 64)
    assert len(name) == 16
    assert name == run_name({"options": {"epochs": 3, "eps": 4 / 255}, "method": "umed"}, "f" * 64)
    assert name != run_name(CONFIG, "e" * 64)
    assert name != run_name({**CONFIG, "method": "salm"}, "f" * 64)
    with own(tmp_path / "a", CONFIG, "f" * 64) as a, own(tmp_path / "b", CONFIG, "f" * 64) as b:
        assert a.path.name == b.path.name == name


def test_everything_in_a_run_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with own(tmp_path / "runs", CONFIG, "f") as run:
            run.log("a line")
            run.append_metrics([{"step": 1, "loss": 0.5}])
            run.save_checkpoint(1, b"state")
            run.finish({})
            drawn_once(tmp_path / "runs" / "chosen.json", Drawn, lambda: Drawn(1))
    finally:
        os.umask(before)
    paths = [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]
    assert {p.name for p in paths} >= {
        "config.json",
        "checkpoints",
        "metrics.jsonl",
        "log.txt",
        "done.json",
        "chosen.json",
    }
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_newest_checkpoint_and_one_more_stay(tmp_path: Path) -> None:
    with own(tmp_path, CONFIG, "f") as run:
        for step in (5, 10, 15):
            run.save_checkpoint(step, b"%d" % step)
        assert [path.read_bytes() for path in run.checkpoints()] == [b"15", b"10"]
    with own(tmp_path, CONFIG, "f") as run:
        run.save_checkpoint(20, b"20")
        assert [path.read_bytes() for path in run.checkpoints()] == [b"20", b"15"]


def _hold(root: Path, ready: Any) -> None:
    with own(root, CONFIG, "f"):
        ready.set()
        time.sleep(60)


def test_a_second_copy_waits_for_a_live_owner_and_follows_a_dead_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    first = context.Process(target=_hold, args=(tmp_path, ready))
    first.start()
    assert ready.wait(20)
    with pytest.raises(UserError, match=f"process {first.pid} on this machine is at work"):
        own(tmp_path, CONFIG, "f", patience=0.2).__enter__()
    first.kill()
    first.join()
    with own(tmp_path, CONFIG, "f") as run:
        run.check_owner()


def held(*_: int) -> None:
    raise OSError(errno.EAGAIN, "the lock is another's")


def test_a_copy_elsewhere_that_was_taken_over_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own(tmp_path, CONFIG, "f") as first:
        first.save_checkpoint(1, b"first")
        # Another host, where the lock shows as held and nobody can tell whether its owner lives.
        monkeypatch.setattr(runs.socket, "gethostname", lambda: "elsewhere")
        monkeypatch.setattr(runs.fcntl, "lockf", held)
        with own(tmp_path, CONFIG, "f", patience=0.0) as second:
            second.save_checkpoint(2, b"second")
            for write in (lambda: first.save_checkpoint(3, b"stale"), lambda: first.finish({}), first.check_owner):
                with pytest.raises(OwnershipLost, match="elsewhere has taken this run over"):
                    write()
            assert [path.read_bytes() for path in second.checkpoints()] == [b"second", b"first"]
            assert second.read_note("done.json", dict[str, Any]) is None


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "file", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "file", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_metrics_that_a_restart_computes_again_are_dropped(tmp_path: Path) -> None:
    with own(tmp_path, CONFIG, "f") as run:
        run.append_metrics([{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        run.forget_metrics_after(2)
        assert (run.path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n'


def test_values_are_drawn_once(tmp_path: Path) -> None:
    assert drawn_once(tmp_path / "chosen", Drawn, lambda: Drawn(1)) == Drawn(1)
    assert drawn_once(tmp_path / "chosen", Drawn, lambda: Drawn(2)) == Drawn(1)


def test_an_edited_configuration_is_refused(tmp_path: Path) -> None:
    with own(tmp_path, CONFIG, "f") as run:
        path = run.path / "config.json"
    path.write_text(path.read_text().replace("umed", "salm"))
    with pytest.raises(UserError, match="was changed"), own(tmp_path, CONFIG, "f"):
        pass
