"""A sweep on SLURM: what is submitted, and what each of its jobs does when SLURM starts it."""

import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.audit.train import TrialJob
from medveil.launch.jobs import squeue
from medveil.launch.jobs.job import Job, Record, execute
from medveil.launch.jobs.sbatch import array_parameters, arrays, dependencies
from medveil.launch.jobs.slurm import Slurm
from medveil.launch.jobs.submissions import note_submitted
from medveil.launch.protect.config import ProtectJob
from medveil.launch.running.files import make_private
from medveil.launch.running.processes import handling
from medveil.launch.running.runtime import StopFlag

_REQUEUE_SECONDS = 60.0
"""How long a job that goes back to the queue waits for SLURM to end it."""


def submit(
    jobs: Sequence[Job], slurm: Slurm, name: str, threads: int, folder: Path, active: Mapping[str, str]
) -> dict[str, str]:
    """Queue ``jobs`` with their pickles and logs in ``folder``; returns their ids by key, and keeps them there too.

    ``active``: ids of jobs that are queued already, for which those that need them wait. Raises UserError when SLURM
    refuses.
    """
    make_private(folder)
    ids, submitted = dict(active), dict[str, str]()
    in_line = slurm.max_parallel is not None
    previous = sorted({job.split("_")[0] for job in active.values()})
    before = os.umask(0o077)
    try:
        for chunk in arrays(jobs, in_line):
            after = previous if in_line else dependencies(chunk[0], ids)
            parameters = array_parameters(slurm, name, threads, chunk, after, folder)
            for job in chunk:
                job.forget()
            found = _sbatch(chunk, parameters, slurm.requeues, folder)
            ids |= found
            submitted |= found
            previous = sorted({job.split("_")[0] for job in found.values()})
            # After each array: should the next be refused, these are known.
            note_submitted(folder, submitted)
    finally:
        os.umask(before)
    return submitted


def _sbatch(chunk: Sequence[Job], parameters: Mapping[str, object], requeues: int, folder: Path) -> dict[str, str]:
    from submitit.helpers import clean_env
    from submitit.slurm.slurm import SlurmExecutor

    # What a site sets for all is kept; what an enclosing job left would be taken for this one's.
    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    try:
        with clean_env():
            os.environ.update(kept)
            executor = SlurmExecutor(folder, max_num_timeout=0)
            executor.update_parameters(**parameters)
            with executor.batch():
                handles = [executor.submit(run_on_cluster, job, requeues) for job in chunk]
    except Exception as error:
        # submitit raises whatever sbatch made it raise; the last line is sbatch's own.
        said = str(error).strip().splitlines()
        last = said[-1] if said else type(error).__name__
        raise UserError(f"SLURM refuses {parameters['job_name']}: {last}") from error
    return {job.key: handle.job_id for job, handle in zip(chunk, handles, strict=True)}


def run_on_cluster(job: Job, requeues: int) -> None:
    """What SLURM starts, once per process of ``job``; submitit's pickle names this function.

    The job's own record says how it went, and the exit code agrees. Told to stop by SIGUSR2 (the time limit is near, or
    a preemption), the job has saved its state, and the first process sends it back to the queue, up to ``requeues``
    times. SIGTERM saves the state too, but only who cancels or preempts knows whether the job is to run again.
    """
    os.umask(0o077)
    stop = StopFlag()
    with handling(stop):
        rank = _meet()
        record = _skipped(job, rank) or execute(job)
        if record.state == "interrupted" and record.results.signal == signal.SIGUSR2 and rank == 0:
            record = _requeue(job, record, requeues, stop)
    print(f"{job.title}: {record.status}", flush=True)
    # Another process may still be saving, and --kill-on-bad-exit would end it.
    if rank == 0 and record.state in ("failed", "interrupted"):
        sys.exit(1)
    if record.state == "failed":
        sys.exit(1)


def _meet() -> int:
    """Put this process's place among those of the job into the environment, where ``joined`` finds it."""
    from submitit.helpers import TorchDistributedEnvironment

    # A requeued job keeps its id, from which submitit draws the port; its first copy may still hold that one.
    start = f"{os.environ['SLURM_JOB_ID']} {os.environ.get('SLURM_RESTART_COUNT', '0')}"
    os.environ["MASTER_PORT"] = str(random.Random(start).randint(20000, 60000))
    # Each process picks its GPU among those that SLURM shows it: their numbers need not begin at 0.
    return TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True).rank


def _skipped(job: Job, rank: int) -> Record | None:
    """The record of an audit that has no release to read; None if the job can run."""
    if isinstance(job.work, ProtectJob | TrialJob):
        return None
    releases = job.alike if job.work.release is None else (job.work.release,)
    if any(path.is_dir() for path in releases):
        return None
    needed = [replace(job, key=need).read() for need in job.needs]
    states = [record.state for record in needed if record is not None and record.state != "done"]
    record = Record("skipped", f"protect {states[0] if states else 'failed'}")
    return job.write(record) if rank == 0 else record


def _requeue(job: Job, record: Record, requeues: int, stop: StopFlag) -> Record:
    done = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if done >= requeues:
        return job.write(replace(record, reason=f"{record.reason}; not requeued after {done} of {requeues} restarts"))
    job.write(replace(record, reason=f"{record.reason}; requeued"))
    try:
        squeue.requeue(os.environ["SLURM_JOB_ID"])
    except UserError as error:
        return job.write(replace(record, reason=f"{record.reason}; could not be requeued: {error}"))
    # SLURM now ends this job's processes; one that left before that might count as completed.
    deadline = time.monotonic() + _REQUEUE_SECONDS
    while stop.number != signal.SIGTERM and time.monotonic() < deadline:
        time.sleep(0.1)
    return record
