"""Whole sweeps through sbatch: the same results as on this machine, and ranks on two nodes that agree with one."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.launch.jobs.submissions import Submissions
from tests.slurm.conftest import Sweeping, digests
from tests.slurm.one_machine import Slurm, call, until

SIX_CELLS = """
slurm: {time: 5, memory: 500M}
grid:
  - data: phantom:cls:48:16
    protectors:
      - none
      - random
      - {method: salm, preset: demo, width: 4, steps: 8, pgd_steps: 2}
    exploiters:
      - {model: resnet18, preset: cpu, width: 4, epochs: 1}
    attacks: [none, blur]
"""

# 30 steps of UMed: SALM's fit amplifies rounding, also within one process.
TWO_RANKS = """
slurm: {time: 5, memory: 500M}
grid:
  - data: phantom:seg:48:16
    protectors:
      - {method: umed, width: 4, depth: 2, batch_size: 16, epochs: 10}
"""

# A checkpoint after nearly every step, so that there is one as soon as there is something to lose.
LONG = """
checkpoint_seconds: 0.1
slurm: {time: 5, memory: 500M}
grid:
  - data: phantom:cls:48:16
    protectors:
      - {method: salm, preset: demo, width: 4, steps: 60, pgd_steps: 2, batch_size: 24}
"""

EPS = 4


def test_six_cells_end_to_end(slurm: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweeping(tmp_path, "six", SIX_CELLS)
    assert sweep.run("--cluster", "slurm", "--dry-run") == 0
    cells, text = capsys.readouterr().out.split("\n\n", 1)
    assert len(cells.splitlines()) == 6

    assert sweep.run("--cluster", "auto", "--wait") == 0  # a SLURM answers here, so this means it
    shown = capsys.readouterr().out
    assert "6 cells: 6 done" in shown
    ids = Submissions(sweep.folder / "slurm").ids()
    assert {ids[job.key].partition("_")[0] for job in sweep.plan.jobs if not job.needs} == {ids[sweep.key("none")][:-2]}
    # What was shown before is what was submitted, but for the numbers that SLURM gives.
    scripts = {path.name.split("_")[0]: path for path in (sweep.folder / "slurm" / "001").glob("[0-9]*_submission.sh")}
    assert len(scripts) == text.count("#!/bin/bash") == 5
    arrays = sorted(scripts, key=int)
    for number, job in enumerate(arrays, start=1):
        text = text.replace(f"ARRAY{number}_", f"{job}_")
    for script in scripts.values():
        assert script.read_text().strip() in text
    # Everything is the user's alone (a symbolic link has no mode of its own).
    for path in [sweep.runs, *sweep.runs.rglob("*")]:
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path

    (tmp_path / "here").mkdir()
    here = Sweeping(tmp_path / "here", "six", SIX_CELLS)
    assert here.run() == 0
    assert here.metrics() == sweep.metrics()
    for job in sweep.plan.jobs:
        if not job.needs:
            assert digests(sweep.folder / "releases" / job.key) == digests(here.folder / "releases" / job.key)


def test_two_nodes_agree_with_one_process(slurm: Slurm, tmp_path: Path) -> None:
    two = Sweeping(tmp_path, "two", TWO_RANKS)
    assert two.submit("--nodes", "2", "--wait") == 0
    assert "NumNodes=2 NumCPUs=2 NumTasks=2" in call("scontrol", "show", "job", two.job_id("umed"))
    one = Sweeping(tmp_path, "one", TWO_RANKS)
    assert one.run() == 0
    equal, largest = _compare(two.release("umed"), one.release("umed"))
    assert equal >= 0.99
    assert largest <= 2 * EPS


@pytest.mark.parametrize("nodes", [1, 2])
def test_preempted_and_requeued(slurm: Slurm, tmp_path: Path, nodes: int) -> None:
    cut = Sweeping(tmp_path, "cut", LONG)
    assert cut.submit("--nodes", str(nodes)) == 0
    job = cut.job_id("salm")
    until(lambda: cut.steps_saved("salm") > 0, 90, "checkpoint")
    call("scancel", "--signal=USR2", job)
    until(lambda: "Restarts=1" in call("scontrol", "show", "job", job), 60, "requeue")
    assert cut.submit("--resume", "--wait") == 0
    (step,) = re.findall(r"goes on from step (\d+)", cut.run_log("salm"))
    assert 0 < int(step) < 60

    whole = Sweeping(tmp_path, "whole", LONG)
    assert (whole.run() if nodes == 1 else whole.submit("--nodes", "2", "--wait")) == 0
    assert digests(cut.release("salm")) == digests(whole.release("salm"))


def _compare(first: Path, second: Path) -> tuple[float, int]:
    """The share of equal bytes, and the largest difference in grey levels, of two releases' images."""
    differences = []
    for path in sorted((first / "images").rglob("*.png")):
        other = second / path.relative_to(first)
        differences.append(np.abs(np.asarray(Image.open(path), dtype=int) - np.asarray(Image.open(other), dtype=int)))
    every = np.stack(differences)
    return float((every == 0).mean()), int(every.max())
