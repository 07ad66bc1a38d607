"""Noise kept per sample, sharded over two ranks, goes on over one or three, and the release is the same."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.launch.errors import Interrupted
from medveil.launch.protect.job import ProtectJob, _in_worker, run_protect
from medveil.launch.running.processes import run_local
from medveil.launch.running.runtime import ProcessRuntime

Meeting = tuple[str, int, int]

STEPS, STOP = 4, 2

# Gentle: SALM's fit amplifies rounding.
OPTIONS = {
    "steps": STEPS,
    "start": "stored",
    "release": "stored",
    "pgd_steps": 2,
    "transforms": 1,
    "width": 4,
    "batch_size": 10,
    "learning_rate": 1e-4,
}


def job(out: Path, processes: int = 1) -> ProtectJob:
    data = "phantom:cls:21:16"
    return ProtectJob("salm", data, out, OPTIONS, seed=5, threads=1, device="cpu", processes=processes, quiet=True)


def stopped_on_one_rank(out: Path, meeting: Meeting) -> None:
    step = ProcessRuntime.step

    def step_and_stop(self: ProcessRuntime, done: int, *args: object, **metrics: object) -> None:
        if done == STOP and self.rank == 1:
            self.stop.number = signal.SIGUSR2
        step(self, done, *args, **metrics)  # type: ignore[arg-type]

    ProcessRuntime.step = step_and_stop  # type: ignore[method-assign,assignment]
    _in_worker(job(out), meeting)


def pixels(release: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file), dtype=int) for file in sorted((release / "images").rglob("*.png"))])


def test_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    run_protect(job(tmp_path / "whole"))
    whole = pixels(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_local(stopped_on_one_rank, tmp_path / "cut", 2)
    for processes in (1, 3):
        out = tmp_path / f"on-{processes}"
        shutil.copytree(tmp_path / ".cut.run", tmp_path / f".{out.name}.run")
        run_protect(job(out, processes))
        (log,) = tmp_path.glob(f".{out.name}.run/*/log.txt")
        assert f"goes on from step {STOP}" in log.read_text()
        difference = np.abs(pixels(out) - whole)
        assert (difference == 0).mean() >= 0.99
        assert difference.max() <= 2 * 8
