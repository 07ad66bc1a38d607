"""How a sweep stands, shown once or until it has ended, and its end before that."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping

from medveil.errors import UserError
from medveil.launch.errors import tell
from medveil.launch.jobs import squeue
from medveil.launch.jobs.job import Ending, Job, Record
from medveil.launch.jobs.status import ACTIVE, Standing, of_cell, standings, tail
from medveil.launch.running.progress import clock
from medveil.launch.sweeping.grid import Sweep
from medveil.launch.sweeping.outcome import is_no_failure, publish
from medveil.launch.sweeping.plan import SweepPlan

POLL_SECONDS = 5.0

_CANCEL_SECONDS = 120.0
"""How long jobs that were cancelled may take to save their state and end."""


def show(sweep: Sweep, planned: SweepPlan) -> int:
    """Print one line per cell, with the last lines of the log of what failed, and the counts.

    Once nothing is under way any more the report is written. Returns 1 when a cell has failed, was skipped or stopped.
    """
    stands = standings(planned.jobs, planned.folder.submissions)
    stands |= {key: Standing("skipped", reason) for key, reason in planned.skipped.items()}
    jobs = {job.key: job for job in planned.jobs}
    cells: list[Standing] = []
    explained: set[str] = set()
    for cell, *keys in planned.cells:
        standing, key = of_cell(stands, keys)
        cells.append(standing)
        name = " ".join(" ".join(cell.columns()[:-1]).split())
        part = "" if standing.state == "done" or not standing.detail else f" ({key.split('-')[0]})"
        detail = f": {standing.detail}" if standing.detail else ""
        tell(f"{standing.state:<10}{name} seed {cell.training_seed}{part}{detail}")
        if standing.state == "failed" and key not in explained:
            explained.add(key)
            for line in tail(jobs[key], planned.folder.submissions):
                tell(f"            | {line}")
    print(f"{len(cells)} cells: {_counts(cells)}")
    if not any(standing.state in ACTIVE for standing in stands.values()):
        publish(sweep, planned, _records(planned, stands))
        print(f"report: {planned.folder.page} (holds original images: keep it private)")
    return int(any(s.state in ("failed", "skipped", "stopped") and not is_no_failure(str(s)) for s in cells))


def follow(planned: SweepPlan, deadline: float) -> bool:
    """Print each job's changes until all have ended; False if ``deadline`` (on the monotonic clock) comes first."""
    begun = time.monotonic()
    before: dict[str, str] = {}
    counts = ""
    while True:
        stands = standings(planned.jobs, planned.folder.submissions)
        since = clock(time.monotonic() - begun)
        for job in planned.jobs:
            standing = stands[job.key]
            # How far a job is changes all the time; that it is at it is said once.
            said = standing.state if standing.state in ("waiting", "running") else str(standing)
            if said != before.get(job.key, "waiting"):
                tell(f"{since} {job.title}: {said}")
            before[job.key] = said
        if counts != (counts := _counts(list(stands.values()))):
            print(f"{since} {len(stands)} jobs: {counts}", flush=True)
        if not any(standing.state in ACTIVE for standing in stands.values()):
            return True
        if time.monotonic() >= deadline:
            return False
        _draw(f"{since} {counts}; " + "; ".join(s.detail for s in stands.values() if s.state == "running" and s.detail))
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        _draw("")


def cancel(sweep: Sweep, planned: SweepPlan) -> int:
    """End every job of the sweep that is queued or runs on SLURM. Raises UserError for those that did not end."""
    ids = planned.folder.submissions.ids()
    if not ids:
        raise UserError(f"{sweep.name} was not submitted to SLURM: stop it where it runs, with Ctrl-C")
    queued = _queued(planned)
    if queued:
        squeue.cancel([ids[job.key] for job in queued])
    deadline = time.monotonic() + _CANCEL_SECONDS
    while left := _queued(planned):
        if time.monotonic() >= deadline:
            raise UserError(
                f"{len(left)} of {len(queued)} jobs have not ended yet: medveil sweep status {planned.folder.path}"
            )
        time.sleep(1.0)
    for job in queued:
        record, attempt = job.read(), job.attempt()
        name = attempt.name if attempt is not None else ""
        # SLURM soon forgets those that never began, and one that had no time to save its state left no word.
        if record is None or record.attempt != name:
            job.write(Record("interrupted", "cancelled", attempt=name))
    print(f"cancelled {len(queued)} jobs; --resume goes on from what they saved")
    return 0


def _draw(line: str) -> None:
    """Replace the last line of a terminal."""
    if sys.stderr.isatty():
        print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)


def _queued(planned: SweepPlan) -> list[Job]:
    if squeue.queue() is None:
        raise UserError("SLURM does not answer (squeue): run this where it does")
    stands = standings(planned.jobs, planned.folder.submissions)
    return [job for job in planned.jobs if stands[job.key].queued]


def _records(planned: SweepPlan, stands: Mapping[str, Standing]) -> dict[str, Record]:
    """Every job's record; one that left none gets one that says what is known of it."""
    records = {}
    for job in planned.jobs:
        standing, record = stands[job.key], job.read()
        state: Ending = "interrupted" if standing.state == "stopped" else "failed"
        if standing.state in ("failed", "stopped") and (record is None or record.state != state):
            record = Record(state, standing.detail)
        if record is not None:
            records[job.key] = record
    return records


def _counts(stands: list[Standing]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(standing.state for standing in stands).items())
