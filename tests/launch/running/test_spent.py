"""Seconds and memory of a run count over all its starts."""

from pathlib import Path

import pytest
import torch

from medveil.launch.errors import Interrupted
from medveil.launch.running import spent
from medveil.launch.running.processes import Processes
from medveil.launch.running.runs import own
from medveil.launch.running.runtime import running


def test_a_resumed_run_counts_from_its_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("medveil.launch.running.spent.time.monotonic", lambda: now[0])
    processes = Processes(torch.device("cpu"))

    def start(seconds: float, ending: type[BaseException] | None, peak: int) -> dict[str, float]:
        monkeypatch.setattr(spent, "peak_memory", lambda: peak)
        with (
            own(tmp_path, {}, "f") as run,
            running(processes, run, "fp32", "x", quiet=True) as runtime,
            spent.spending(run, runtime) as taken,
        ):
            now[0] += seconds
            runtime.step(1, 1, dict)
            now[0] += 1
            if ending is Interrupted:
                raise Interrupted(15, "here")
            if ending is not None:
                raise ending
            return taken.metrics(500)

    with pytest.raises(Interrupted):
        start(10, Interrupted, 700)
    # One that is killed has kept what it took until its last checkpoint.
    with pytest.raises(MemoryError):
        start(20, MemoryError, 900)
    metrics = start(30, None, 800)
    assert metrics["seconds"] == 11 + 20 + 31
    assert metrics["starts"] == 3
    assert metrics["seconds_per_1000_images"] == 124
    assert metrics["peak_memory_bytes"] == 900


def test_a_peak_begins_anew() -> None:
    block = torch.ones(64 << 20, dtype=torch.uint8)
    high = spent.peak_memory()
    del block
    spent.begin_peak()
    assert spent.peak_memory() < high
