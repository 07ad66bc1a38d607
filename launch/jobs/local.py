"""Jobs on this machine: in this process one after the other, or side by side in worker processes."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from medveil.launch.jobs.job import Job, Record, execute, skip

Listener = Callable[[Job, Record], None]


def run_inline(jobs: Sequence[Job], listener: Listener) -> None:
    """Every job in this process, in order; what needs a failed job is skipped, what comes after a stopped one left."""
    records: dict[str, Record] = {}
    for job in jobs:
        records[job.key] = skip(job, records) or execute(job)
        listener(job, records[job.key])
        if records[job.key].state == "interrupted":
            return


def run_side_by_side(jobs: Sequence[Job], workers: int, listener: Listener) -> None:
    """Every job in one of ``workers`` processes, each as soon as what it needs is done.

    A process that dies fails its job alone and is replaced. Ctrl-C reaches the workers too, which save their state; the
    jobs that have not begun are left.
    """
    waiting = list(jobs)
    records: dict[str, Record] = {}
    idle = [_worker() for _ in range(min(workers, len(jobs)))]
    running: dict[Future[Record], tuple[Job, ProcessPoolExecutor]] = {}
    try:
        while waiting or running:
            for job in [job for job in waiting if all(need in records for need in job.needs)]:
                if (skipped := skip(job, records)) is not None:
                    records[job.key] = skipped
                    listener(job, skipped)
                elif idle:
                    worker = idle.pop()
                    running[worker.submit(execute, job)] = (job, worker)
                else:
                    continue
                waiting.remove(job)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job, worker = running.pop(future)
                try:
                    records[job.key] = future.result()
                except BrokenProcessPool:
                    records[job.key] = job.write(Record("failed", "its process was killed (out of memory?)"))
                    worker = _worker()
                idle.append(worker)
                listener(job, records[job.key])
    finally:
        for worker in [*idle, *(worker for _, worker in running.values())]:
            worker.shutdown(wait=True, cancel_futures=True)


def _worker() -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would share torch's thread pools and a CUDA context. One process per executor, so
    # that a death points to one job.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin_worker)


def _begin_worker() -> None:
    """A worker that waits for its next job ignores Ctrl-C; within a job the job's own handler counts.

    When the sweep is killed, its workers are told to stop too: an orphan would own its run while nobody waits for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    # Not by os.getppid, which is another process already where the sweep was killed while this one started.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    # A job in hand answers it by saving its state; the process that would then wait for another ends after it.
    while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
