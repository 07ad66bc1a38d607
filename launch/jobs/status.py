"""How each cell of a sweep stands: what its run directory says first, then SLURM's queue, then its accounting."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medveil.launch.jobs import squeue
from medveil.launch.jobs.job import HEARTBEAT_SECONDS, Job, Record
from medveil.launch.jobs.squeue import ENDED, WAITING, Entry
from medveil.launch.jobs.submissions import Submissions
from medveil.launch.reading import read_bytes
from medveil.launch.running.runs import host

Stage = Literal["waiting", "running", "preempted", "done", "failed", "skipped", "stopped"]

ACTIVE: tuple[Stage, ...] = ("waiting", "running", "preempted")

_ORDER: tuple[Stage, ...] = ("failed", "stopped", "skipped", "running", "preempted", "waiting", "done")
"""Of the jobs of a cell, the first of these that one of them is in stands for the cell."""

_SILENT_SECONDS = 12 * HEARTBEAT_SECONDS
"""Without a sign of life for so long, and with nobody to ask, a job counts as dead."""

_UNSEEN_SECONDS = 30.0
"""A job just submitted may be missing from the queue for so long."""

_TAIL_LINES = 5


@dataclass(frozen=True)
class Standing:
    """The state of a job (or a cell), and why or how far. ``queued``: SLURM has it, waiting or running."""

    state: Stage
    detail: str = ""
    queued: bool = False

    def __str__(self) -> str:
        return f"{self.state}: {self.detail}" if self.detail else self.state


def standings(jobs: Sequence[Job], submissions: Submissions) -> dict[str, Standing]:
    """Every job's standing by its key. Asks SLURM at most twice."""
    ids = submissions.ids()
    decided = {job.key: record for job in jobs if (record := _final(job, job.key in ids)) is not None}
    open_ids = {ids[job.key] for job in jobs if job.key in ids and job.key not in decided}
    queue = squeue.queue() if open_ids else {}
    unseen = open_ids - set(queue or {})
    accounts = squeue.accounts(unseen) if unseen else {}
    found: dict[str, Standing] = {}
    for job in jobs:
        if job.key in decided:
            found[job.key] = _of_record(decided[job.key])
        elif job.key in ids:
            known = (queue or {}).get(ids[job.key]) or (accounts or {}).get(ids[job.key])
            found[job.key] = _on_slurm(job, ids[job.key], known, submissions, queue is not None)
        else:
            found[job.key] = _here(job)
    return found


def of_cell(standings: Mapping[str, Standing], keys: Sequence[str | None]) -> tuple[Standing, str]:
    """A cell's standing, and the key of the job that decides it."""
    stands = {key: standings[key] for key in keys if key is not None}
    key = min(stands, key=lambda key: _ORDER.index(stands[key].state))
    # Audits that wait while their release is being made: the release is what is going on.
    return stands[key], key


def tail(job: Job, submissions: Submissions) -> list[str]:
    """The last lines of the job's log, or, where it wrote none, of what SLURM caught of it."""
    paths = [job.log_path]
    ids, where = submissions.ids(), submissions.folder_of(job.key)
    if where is not None:
        paths += [where / f"{ids[job.key]}_0_log.err", where / f"{ids[job.key]}_0_log.out"]
    for path in paths:
        lines = _last_lines(path)
        if lines:
            return lines
    return []


def progress(job: Job) -> str:
    """The last thing the job said, shortened to what follows its name: "step 20 of 300, loss 1.2, ..."."""
    for line in reversed(_last_lines(job.log_path)):
        if (found := re.search(r"step \d+ of \d+.*", line)) is not None:
            return found.group()
    return ""


def _final(job: Job, on_slurm: bool) -> Record | None:
    """The record, if nothing can follow it. SLURM may restart a job that failed: one that lost a node, for one."""
    record, attempt = job.read(), job.attempt()
    if record is None or record.state == "interrupted":
        return None
    if record.state in ("done", "skipped"):
        return record
    return record if not on_slurm and (attempt is None or record.attempt == attempt.name) else None


def _of_record(record: Record) -> Standing:
    return Standing("stopped" if record.state == "interrupted" else record.state, record.reason)


def _on_slurm(job: Job, job_id: str, known: Entry | None, submissions: Submissions, answered: bool) -> Standing:
    """The standing of a submitted job that has left no final record; ``known``: what SLURM says of it."""
    attempt, record = job.attempt(), job.read()
    own = record if record is not None and record.attempt == (attempt.name if attempt is not None else "") else None
    if known is not None and known.state in WAITING:
        if attempt is None:
            return Standing("waiting", _in_words(known.reason), queued=True)
        return Standing("preempted", own.reason if own else "its node or process was lost; requeued", queued=True)
    if known is not None and known.state not in ENDED and (own is None or own.state != "failed"):
        return Standing("running", progress(job) if attempt is not None else "starting", queued=True)
    if own is not None:
        if not answered and own.reason.endswith("requeued"):
            return Standing("preempted", own.reason)
        return _of_record(own)
    note = _exit_note(job, job_id, submissions)
    if known is not None:
        return _ended_alone(known, note)
    if note is not None:
        return Standing("failed", note)
    if attempt is not None:
        silent = time.time() - job.attempt_path.stat().st_mtime
        if not answered and silent < _SILENT_SECONDS:
            return Standing("running", progress(job))
        return Standing("failed", f"ended without a word; no sign of life for {silent:.0f} s")
    submitted_at = submissions.submitted_at(job.key)
    age = 0.0 if submitted_at is None else time.time() - submitted_at
    if not answered:
        return Standing("waiting", "SLURM does not answer")
    if age < _UNSEEN_SECONDS:
        return Standing("waiting", "just submitted", queued=True)
    return Standing("failed", "the queue does not know it, and it never began")


def _ended_alone(known: Entry, note: str | None) -> Standing:
    """SLURM says that it ended, and it left no record."""
    if known.state == "CANCELLED":
        return Standing("stopped", "cancelled")
    said = {
        "TIMEOUT": "the time limit was hit before it could save its state",
        "NODE_FAIL": "its node was lost",
        "OUT_OF_MEMORY": "out of memory: ask for more with --memory",
    }.get(known.state)
    return Standing("failed", said or note or f"SLURM says {known.state} {known.reason}".strip())


def _exit_note(job: Job, job_id: str, submissions: Submissions) -> str | None:
    """What the batch shell noted of the newest start's end, in words."""
    where, attempt = submissions.folder_of(job.key), job.attempt()
    path = where / f"{job_id}.exit" if where is not None else None
    if path is None or not path.exists():
        return None
    # The shell writes it as the job ends: it may be cut short.
    said = re.fullmatch(rb"(\d{1,3}) (\d{1,9})\s*", read_bytes(path, 1 << 10))
    if said is None:
        return None
    code, restart = int(said[1]), int(said[2])
    if attempt is not None and not attempt.name.endswith(f".{restart}"):
        return None
    if code > 128:
        return f"its process was killed by signal {code - 128} (9: killed from outside, or out of memory)"
    return f"its process ended with exit code {code} and no record"


def _here(job: Job) -> Standing:
    """The standing of a job on this machine that has left no final record."""
    attempt, record = job.attempt(), job.read()
    if attempt is None:
        return Standing("waiting", "not begun")
    if record is not None and record.attempt == attempt.name:
        return _of_record(record)
    silent = time.time() - job.attempt_path.stat().st_mtime
    if silent < _SILENT_SECONDS and (attempt.host != host() or _lives(attempt.pid)):
        return Standing("running", progress(job))
    return Standing("failed", f"its process died; no sign of life for {silent:.0f} s")


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() or not Path("/proc/self").exists()


def _last_lines(path: Path) -> list[str]:
    """The last non-empty lines of a file that may be long; none if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-_TAIL_LINES:]


def _in_words(reason: str) -> str:
    """SLURM's reason for waiting."""
    words = {"Dependency": "for its release", "Resources": "for free nodes", "Priority": "for jobs before it"}
    return words.get(reason, "" if reason == "None" else reason)
