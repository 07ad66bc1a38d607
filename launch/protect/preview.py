"""What a protect job would do, and about how long it would take: nothing is written."""

import time
from typing import Any

import torch

from medveil.dataset import Dataset
from medveil.launch.data import Opener
from medveil.launch.protect.chosen import would_choose
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.input import Input, check_job, headlines, make_protector, open_input
from medveil.launch.running.estimate import fit_seconds
from medveil.launch.running.processes import pick_device
from medveil.launch.running.progress import duration
from medveil.protector import Protector
from medveil.runtime import Runtime

_SAMPLE = 16


def preview(job: ProtectJob) -> list[str]:
    """Lines for the screen. Raises UserError for whatever the job itself would refuse."""
    check_job(job)
    given, chosen, took = _measured(job)
    return [*headlines(job, given, chosen), f"takes {took}; nothing was written"]


def about(job: ProtectJob) -> tuple[list[str], str]:
    """What opening the job's data says of it, and about how long it would take, in words.

    Raises UserError for data that it would refuse.
    """
    given, _, took = _measured(job)
    return given.source.notes, took


def _measured(job: ProtectJob) -> tuple[Input, dict[str, Any], str]:
    """The job's data; the threads, precision and preset that would run; and about how long it would take."""
    begun = time.monotonic()
    given = open_input(job, Opener(job.cache, job.skip_bad, job.reading, job.fit_windows))
    opened = time.monotonic() - begun
    device = pick_device(job.device)
    chosen = would_choose(job, device)
    torch.set_num_threads(chosen["threads"])
    made: list[Protector] = []

    def fit(data: Dataset, runtime: Runtime) -> None:
        made.append(make_protector(job, chosen["preset"], job.seed or 0))
        made[-1].fit(data, runtime)

    data = given.fit
    size = getattr(make_protector(job, chosen["preset"], 0).config, "batch_size", _SAMPLE)
    dtype = torch.bfloat16 if chosen["precision"] == "bf16" else torch.float32
    seconds = fit_seconds(fit, data, size, device, dtype) if len(data) else 0.0
    if made and not made[-1].config.keeps_noise:
        seconds += _perturbing(made[-1], data, device) * len(given.indices)
    alone = "" if job.processes == 1 else " with one process"
    # Writing the images and reading them again takes about as long each as reading them did.
    return given, chosen, f"about {duration(seconds + 2 * opened)} on this machine{alone}"


def _perturbing(protector: Protector, data: Dataset, device: torch.device) -> float:
    """Seconds that the noise of one image takes at the end."""
    images, targets, ids = data.read(range(min(len(data), _SAMPLE)))
    begun = time.monotonic()
    protector.perturb(images.to(device), targets.to(device), ids).cpu()
    return (time.monotonic() - begun) / len(ids)
