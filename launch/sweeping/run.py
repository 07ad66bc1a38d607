"""A sweep's private folders, and those of its jobs that are missing run on this machine."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from medveil.config import build
from medveil.errors import UserError
from medveil.launch.errors import tell
from medveil.launch.jobs.job import Job, Record
from medveil.launch.jobs.local import run_inline, run_side_by_side
from medveil.launch.jobs.trials import MORE_SEEDS, WORST, workers_by_default
from medveil.launch.ranks import rank, world_size
from medveil.launch.reading import read_own
from medveil.launch.release.manifest import check_outside_releases
from medveil.launch.results import CellResult
from medveil.launch.running.bfloat import say_if_slow
from medveil.launch.running.files import write_private
from medveil.launch.running.processes import pick_device
from medveil.launch.running.progress import clock
from medveil.launch.sweeping.deeper import deepened
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.grid import Sweep
from medveil.launch.sweeping.outcome import publish, results
from medveil.launch.sweeping.plan import SweepPlan, plan


def prepare(sweep: Sweep, folder: SweepFolder) -> SweepPlan:
    """Make the sweep's private folders and keep the sweep itself in them; returns its plan."""
    check_outside_releases(folder.path)
    folder.make()
    write_private(folder.definition, (json.dumps(asdict(sweep), indent=1) + "\n").encode())
    return plan(sweep, folder)


def prepared(folder: SweepFolder) -> tuple[Sweep, SweepPlan]:
    """The sweep that was last run in ``folder``, and its plan. Raises UserError where there is none."""
    values = read_own(dict[str, Any], folder.definition)
    if values is None:
        raise UserError(f"{folder.path} holds no sweep: name the folder of one, such as runs/demo")
    sweep = build(Sweep, values, str(folder.definition))
    return sweep, plan(sweep, folder)


def run(sweep: Sweep, folder: SweepFolder) -> list[CellResult]:
    """Run what is missing of ``sweep`` in ``folder`` and report what is there; returns every cell's result.

    Under torchrun all its processes do each job together, one job after the other.
    """
    planned = prepare(sweep, folder) if rank() == 0 else plan(sweep, folder)
    records: dict[str, Record] = {}
    begun = time.monotonic()
    say_if_slow(sweep.precision, pick_device(sweep.device))

    def listen(job: Job, record: Record) -> None:
        records[job.key] = record
        if rank() == 0:
            since = clock(time.monotonic() - begun)
            tell(f"{since} [{len(records)}/{len(planned.jobs)}] {job.title}: {record.status}")

    def work(jobs: Sequence[Job]) -> None:
        if sweep.workers == 0 or world_size() > 1:
            run_inline(jobs, listen)
        else:
            workers = sweep.workers or workers_by_default(pick_device(sweep.device), sweep.threads)
            run_side_by_side(jobs, workers, listen)

    try:
        work(planned.jobs)
        # Several processes would have to agree on it: one alone does it when the sweep is started again.
        stopped = world_size() > 1 or any(record.state == "interrupted" for record in records.values())
        further = planned if stopped else deepened(sweep, planned)
        if further is not planned:
            planned = further
            # The releases are there: the trainings had them.
            new = [replace(job, needs=()) for job in planned.jobs if job.key not in records]
            tell(f"the worst {WORST} attacks on each release with {MORE_SEEDS} more seeds: {len(new)} trainings")
            work(new)
    finally:
        rows = publish(sweep, planned, records) if rank() == 0 else results(planned, records)
    return rows
