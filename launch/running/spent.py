"""What a run took: seconds over all its starts, and the most memory that a process of it held."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from medveil.launch.errors import Interrupted
from medveil.launch.reading import STORED
from medveil.launch.running.processes import Processes
from medveil.launch.running.runs import Run
from medveil.launch.running.runtime import ProcessRuntime

METRICS = "metrics.json"
"""The note in a run directory that holds :meth:`Spent.metrics`."""

_KEPT = "spent.json"
_RESET_PEAK = "5"
"""What /proc/self/clear_refs takes to begin a new peak (Linux)."""


@dataclass(frozen=True)
class _Kept:
    """What earlier starts of a run took."""

    __pydantic_config__ = STORED

    seconds: float = 0.0
    peak_memory_bytes: int = 0
    starts: int = 0


class Spent:
    """Counts from its making on, beyond what earlier starts of ``run`` (rank 0's; None elsewhere) took."""

    def __init__(self, run: Run | None, processes: Processes) -> None:
        self._run, self._processes = run, processes
        self._begun = time.monotonic()
        before = (run.read_note(_KEPT, _Kept) if run is not None else None) or _Kept()
        self._before, self._peak, self._starts = before.seconds, before.peak_memory_bytes, before.starts + 1

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._begun

    def keep(self) -> None:
        """Note what was spent up to now, for the next start."""
        if self._run is not None:
            self._peak = max(self._peak, peak_memory())
            self._run.note(_KEPT, asdict(_Kept(self.seconds, self._peak, self._starts)))

    def metrics(self, images: int) -> dict[str, Any]:
        """Of the whole run, for ``images`` released images; every rank must call it. Bytes are those of one process."""
        device = self._processes.device
        on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        here, there = self._processes.highest([max(self._peak, peak_memory()), on_device])
        thousands, seconds = max(images, 1) / 1000, self.seconds
        return {
            "images": images,
            "starts": self._starts,
            "seconds": seconds,
            "seconds_per_1000_images": seconds / thousands,
            "peak_memory_bytes": here,
            "peak_memory_bytes_per_1000_images": here / thousands,
            "peak_device_memory_bytes": there if device.type == "cuda" else None,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "processes": self._processes.world,
        }


@contextmanager
def spending(run: Run | None, runtime: ProcessRuntime) -> Iterator[Spent]:
    """Counts within, and keeps the count with every checkpoint and at an interruption."""
    spent = Spent(run, runtime.processes)
    runtime.on_save = spent.keep
    try:
        yield spent
    except Interrupted:
        spent.keep()
        raise


def begin_peak() -> None:
    """Let :func:`peak_memory` count from here, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        # Without it the peak is that of the whole process up to now, which is no less than ours.
        return


def peak_memory() -> int:
    """The most resident memory of this process in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        # No /proc on this system: the next line asks it differently.
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def spent_line(metrics: dict[str, Any]) -> str:
    """The line for the screen."""
    each = f"{metrics['seconds_per_1000_images']:.1f} s for each 1,000 images"
    starts = f" over {metrics['starts']} starts" if metrics["starts"] > 1 else ""
    device = metrics["peak_device_memory_bytes"]
    more = f", {device / 2**30:.2f} GiB on the device" if device else ""
    peak = metrics["peak_memory_bytes"] / 2**30
    return f"{metrics['seconds']:.1f} s{starts} ({each}); peak resident memory {peak:.2f} GiB{more}"
