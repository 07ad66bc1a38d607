"""What SLURM says of jobs, and what it is told: every call is bounded, and one that gets no answer says so."""

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from medveil.errors import UserError

_SECONDS = 20.0
"""How long a call to SLURM may take; a busy controller needs some."""

_ARGUMENTS = 500
"""Job ids in one call."""

ENDED = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    )
)
"""States from which a job does not come back by itself."""

WAITING = frozenset(("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"))


@dataclass(frozen=True)
class Entry:
    """A job as SLURM sees it: its state in capitals, and why, where it says."""

    state: str
    reason: str = ""


def available() -> bool:
    """Whether there is an sbatch here, and a cluster that answers."""
    return shutil.which("sbatch") is not None and _ask(["sinfo", "--noheader", "--summarize"]) is not None


def queue() -> dict[str, Entry] | None:
    """The user's jobs that the controller still knows, by id (elements of arrays as 12_3); None: no answer."""
    user = str(os.getuid())
    answer = _ask(["squeue", "--noheader", "--states=all", "--array", f"--user={user}", "--format=%i|%T|%r"])
    return None if answer is None else _entries(answer)


def accounts(ids: Collection[str]) -> dict[str, Entry] | None:
    """Those of ``ids`` that accounting knows; None: it does not answer, as on many sites."""
    if not ids:
        return {}
    main = sorted({job.split("_")[0] for job in ids})
    entries: dict[str, Entry] = {}
    for first in range(0, len(main), _ARGUMENTS):
        jobs = ",".join(main[first : first + _ARGUMENTS])
        options = ["--noheader", "--allocations", "--parsable2", "--format=JobID,State,ExitCode"]
        answer = _ask(["sacct", *options, f"--jobs={jobs}"])
        if answer is None:
            return None
        entries |= _entries(answer)
    return {job: entry for job, entry in entries.items() if job in ids}


def cancel(ids: Sequence[str]) -> None:
    """End the jobs ``ids``, waiting or running. Raises UserError when SLURM does not take it."""
    for first in range(0, len(ids), _ARGUMENTS):
        _call(["scancel", *ids[first : first + _ARGUMENTS]])


def requeue(job: str) -> None:
    """Send the running job back to the queue. Raises UserError when SLURM does not take it."""
    _call(["scontrol", "requeue", job])


def _call(command: Sequence[str]) -> str:
    """Run a command of SLURM's and return what it says. Raises UserError with its words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError as error:
        raise UserError(f"{command[0]}: there is no SLURM on this machine: take --cluster local") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]}: SLURM did not answer within {_SECONDS:g} s: try again") from error
    if done.returncode != 0:
        raise UserError(f"{command[0]} failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def _ask(command: Sequence[str]) -> str | None:
    try:
        return _call(command)
    except UserError:
        return None


def _entries(answer: str) -> dict[str, Entry]:
    entries = {}
    for line in answer.splitlines():
        job, state, reason = [*line.split("|"), "", ""][:3]
        # sacct: "CANCELLED by 0", and waiting elements together as 12_[3-5], which squeue knows one by one.
        entries[job.strip()] = Entry(state.split()[0].upper() if state.split() else "", reason.strip())
    return entries
