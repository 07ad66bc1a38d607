"""Jobs that are killed, lose their node, raise or run out of time; and a live sweep watched and cancelled."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.launch.cli import main
from medveil.launch.jobs import squeue
from tests.slurm.conftest import Sweeping, digests
from tests.slurm.one_machine import Slurm, call, until

# Two jobs fit on a node, so that the five lie in pairs: 0 and 1, 2 and 3, 4.
FIVE = """
checkpoint_seconds: 0.1
slurm: {{time: 10, memory: 2000M, requeues: 0}}
grid:
  - data: phantom:cls:48:16
    protectors:
      - {{method: salm, preset: demo, width: 4, batch_size: 24, pgd_steps: 2, steps: [80, 81, 82]}}
  - data: {folder}/absent
    size: 16
    protectors: [random]
    exploiters:
      - {{model: resnet18, preset: cpu, width: 4, epochs: 1}}
  - data: phantom:cls:48:16
    protectors:
      - {{method: salm, preset: demo, width: 4, batch_size: 24, pgd_steps: 2, steps: 83}}
"""

KILLED, UNWATCHED, DOWN, SLOW = "steps=80", "steps=81", "steps=82", "steps=83"

WATCHED = """
checkpoint_seconds: 1
slurm: {time: 10, memory: 500M}
grid:
  - data: phantom:cls:48:16
    protectors:
      - {method: salm, preset: demo, width: 4, batch_size: 24, pgd_steps: 2, steps: 5000}
    exploiters:
      - {model: resnet18, preset: cpu, width: 4, epochs: 1}
"""


def test_every_accident_is_told_and_mended(slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweeping(tmp_path, "five", FIVE.format(folder=tmp_path))
    assert sweep.submit() == 0
    # Each is stopped as soon as there is something to lose, so that none is too fast for its accident.
    pids = {}
    for title in (KILLED, UNWATCHED, DOWN, SLOW):
        until(lambda title=title: sweep.steps_saved(title) > 0, 120, f"checkpoint of {title}")
        pids[title] = _pid(sweep, title)
        os.kill(pids[title], signal.SIGSTOP)
    nodes = {title: _node(sweep, title) for title in (UNWATCHED, DOWN, SLOW)}
    assert len(set(nodes.values())) == 3

    os.kill(pids[KILLED], signal.SIGKILL)
    until(lambda: sweep.standing(KILLED).state == "failed", 30, "end of the killed job")
    assert "killed by signal 9" in sweep.standing(KILLED).detail

    # One minute is less than the warning before it, with which SLURM also wakes the process.
    call("scontrol", "update", f"jobid={sweep.job_id(SLOW)}", "timelimit=1")
    until(lambda: sweep.standing(SLOW).state == "stopped", 90, "end at the time limit")
    assert re.match(r"stopped by SIGUSR2 at step \d+ of 83, which is saved; not", sweep.standing(SLOW).detail)

    slurm.stop_node(nodes[UNWATCHED])
    call("scontrol", "update", f"nodename={nodes[DOWN]}", "state=down", "reason=test")
    until(lambda: sweep.standing(DOWN).state == "preempted", 30, "requeue of the job whose node went down")
    call("scontrol", "update", f"nodename={nodes[DOWN]}", "state=resume")
    for title in (UNWATCHED, DOWN):
        until(lambda title=title: sweep.standing(title).state == "done", 150, f"end of {title}")
        # Sent to the node whose daemon is gone before SLURM misses it, a job is requeued once more.
        assert "Restarts=0" not in call("scontrol", "show", "job", sweep.job_id(title))
        assert "goes on from step" in sweep.run_log(title)
    # The first copy of the job on the unwatched node finds that the second owns the run, and ends.
    assert _lives(pids[UNWATCHED])
    os.kill(pids[UNWATCHED], signal.SIGCONT)
    until(lambda: not _lives(pids[UNWATCHED]), 60, "end of the first copy")
    assert "has taken this run over" in sweep.log(UNWATCHED)
    assert sweep.standing(UNWATCHED).state == "done"

    capsys.readouterr()
    assert main(["sweep", "status", str(sweep.folder)]) == 1
    shown = capsys.readouterr().out
    assert "5 cells: 2 failed, 2 done, 1 stopped" in shown
    assert f"{tmp_path}/absent" in shown

    slurm.start_node(nodes[UNWATCHED])
    _write_images(tmp_path / "absent")
    done = {title: digests(sweep.release(title)) for title in (UNWATCHED, DOWN)}
    assert sweep.submit("--resume", "--wait") == 0
    shown = capsys.readouterr().out
    assert "submitted 5 jobs of 7" in shown
    assert "5 cells: 5 done" in shown
    assert {title: digests(sweep.release(title)) for title in done} == done
    assert "goes on from step" in sweep.run_log(SLOW)


@pytest.mark.parametrize("accounting", [False, True])
def test_watched_and_cancelled(
    slurm: Slurm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    accounting: bool,
) -> None:
    if accounting:
        monkeypatch.setenv("PATH", f"{slurm.accounting}:{os.environ['PATH']}")
    sweep = Sweeping(tmp_path, "watched", WATCHED)
    assert sweep.submit() == 0
    assert (squeue.accounts([sweep.job_id("salm")]) is not None) is accounting
    until(lambda: sweep.steps_saved("salm") > 0, 90, "checkpoint")
    capsys.readouterr()
    assert main(["sweep", "status", str(sweep.folder)]) == 0
    assert "1 cells: 1 running" in capsys.readouterr().out
    assert main(["sweep", "cancel", str(sweep.folder)]) == 0
    assert "cancelled 3 jobs" in capsys.readouterr().out
    assert call("squeue", "--noheader") == ""
    assert main(["sweep", "status", str(sweep.folder)]) == 1
    shown = capsys.readouterr().out
    assert "1 cells: 1 stopped" in shown
    assert "stopped by SIGTERM at step" in shown


def _node(sweep: Sweeping, title: str) -> str:
    (node,) = re.findall(r"^   NodeList=(\S+)", call("scontrol", "show", "job", sweep.job_id(title)), re.MULTILINE)
    return node


def _pid(sweep: Sweeping, title: str) -> int:
    """The process of the protect job's newest start."""
    attempt = next(job for job in sweep.plan.jobs if job.key == sweep.key(title)).attempt()
    assert attempt is not None
    return attempt.pid


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _write_images(folder: Path) -> None:
    """Twenty images of two classes."""
    generator = np.random.default_rng(0)
    for index in range(20):
        path = folder / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
