"""What is chosen where nothing is told: seed, threads, precision and preset; once for each private run folder."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from medveil.launch.protect.config import ProtectJob
from medveil.launch.reading import STORED
from medveil.launch.running.files import drawn_once, make_private
from medveil.launch.running.machine import Precision
from medveil.launch.running.processes import Processes
from medveil.launch.running.runtime import threads_by_default


@dataclass(frozen=True)
class _Drawn:
    """What is chosen at the first start of a run folder where nothing is told."""

    __pydantic_config__ = STORED

    seed: Annotated[int, Field(ge=0, lt=1 << 62)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    precision: Precision
    preset: Literal["cpu", "gpu"]


def choose_once(job: ProtectJob, processes: Processes) -> dict[str, Any]:
    """Seed, threads, precision and preset: as told, else as chosen at the first start of this run folder."""
    root = job.run_root
    make_private(root)
    return _told(job, drawn_once(root / "chosen.json", _Drawn, lambda: _usual(processes.device, processes.world)))


def would_choose(job: ProtectJob, device: torch.device) -> dict[str, Any]:
    """As :func:`choose_once` at a first start with one process, without a word written; another seed."""
    return _told(job, _usual(device, 1))


def _usual(device: torch.device, world: int) -> _Drawn:
    cuda = device.type == "cuda"
    return _Drawn(
        seed=secrets.randbits(62),
        threads=max(1, threads_by_default() // world),
        precision="bf16" if cuda else "fp32",
        preset="gpu" if cuda else "cpu",
    )


def _told(job: ProtectJob, drawn: _Drawn) -> dict[str, Any]:
    asked = {"seed": job.seed, "threads": job.threads, "precision": job.precision, "preset": job.preset}
    chosen = {key: getattr(drawn, key) if value is None else value for key, value in asked.items()}
    chosen["preset"] = drawn.preset if job.preset == "auto" else job.preset
    return chosen
