"""Where and how a job computes, as a person says it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medveil.config import Settings, setting

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]

CHECKPOINT_SECONDS = 30.0

MOST_THREADS = 1024

HERE = "this machine"
"""The heading of flags that change where and how fast a job runs, not what comes of it."""


@dataclass(frozen=True, kw_only=True)
class Machine(Settings):
    """What every job has in common. ``quiet``: nothing on the screen."""

    device: Device = setting("auto", "where to compute; auto: on a GPU if there is one", group=HERE)
    threads: int | None = setting(
        None, "CPU threads of a process; by default torch's own choice, at most 4", low=1, high=MOST_THREADS, group=HERE
    )
    precision: Precision | None = setting(
        None, "precision inside networks; by default bf16 on a GPU, else fp32", group=HERE
    )
    cache: Path | None = setting(
        None, "private folder where sets larger than memory are unpacked and stay", metavar="DIR", group=HERE
    )
    checkpoint_seconds: float = setting(
        CHECKPOINT_SECONDS, "time between checkpoints", unit="seconds", low=0, group=HERE
    )
    quiet: bool = False


def usual_preset(device: str | None) -> Literal["cpu", "gpu"]:
    """The preset that "auto" most likely takes on ``device``, told without torch: for help, not for work."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return "gpu" if device != "cpu" and not hidden and Path("/dev/nvidiactl").exists() else "cpu"
