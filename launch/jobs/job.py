"""The jobs of a sweep: what each one does, and the record that it leaves behind whatever happens to it."""

import contextlib
import json
import os
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TextIO

from medveil.errors import UserError
from medveil.launch.audit.authorised import AuthorisedJob, run_authorised
from medveil.launch.audit.likeness import compare_images
from medveil.launch.audit.train import ExploitJob, TrialJob, run_exploit, run_trial
from medveil.launch.data import Opener
from medveil.launch.errors import Interrupted, explain
from medveil.launch.exploiters.attacks import OutOfReach
from medveil.launch.extras import missing_extra
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.job import metrics_of, run_protect
from medveil.launch.ranks import rank
from medveil.launch.reading import STORED, read_own
from medveil.launch.release.manifest import MANIFEST
from medveil.launch.results import Decibel, Number, Outcome
from medveil.launch.running.files import make_private, sha256_of, write_private
from medveil.launch.running.runs import host

Ending = Literal["done", "failed", "skipped", "interrupted"]

HEARTBEAT_SECONDS = 5.0

_PATIENCE_SECONDS = 2.0
"""How long the other processes of a job leave it to the first to say why the job failed."""


@dataclass(frozen=True)
class Results:
    """What the cells need of a job: the ``outcome`` of a training, the rest of a protect job (see
    :class:`medveil.launch.results.CellResult`). ``signal``: which one stopped it.
    """

    __pydantic_config__ = STORED

    outcome: Outcome | None = None
    release: str = ""
    psnr: Decibel | None = None
    ssim: float | None = None
    roi_psnr: Decibel | None = None
    pictures: str | None = None
    similarity: dict[str, Decibel] = field(default_factory=dict)
    spent: dict[str, Number | str | None] | None = None
    signal: int | None = None


@dataclass(frozen=True)
class Record:
    """How a job ended. ``results`` holds what the cells need of it; ``attempt``: which start of it."""

    __pydantic_config__ = STORED

    state: Ending
    reason: str = ""
    seconds: float = 0.0
    results: Results = field(default_factory=Results)
    attempt: str = ""

    @property
    def status(self) -> str:
        """As a table shows it: "done", or "failed: reason"."""
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True)
class Attempt:
    """A start of a job. The time of its file is the last sign of life."""

    __pydantic_config__ = STORED

    name: str
    host: str
    pid: int


@dataclass(frozen=True)
class Job:
    """One piece of work of a sweep. ``key`` names its record ``KEY.json`` and its log ``KEY.log`` in ``folder``.

    ``needs``: the jobs that must have ended before; at least one of them successfully. ``alike``: releases of the
    samples that an audit of clean images is to train on; any one that is there tells which these are.
    """

    key: str
    title: str
    work: ProtectJob | ExploitJob | AuthorisedJob | TrialJob
    folder: Path
    needs: tuple[str, ...] = ()
    alike: tuple[Path, ...] = ()

    def write(self, record: Record) -> Record:
        write_private(self.folder / f"{self.key}.json", json.dumps(asdict(record)).encode())
        return record

    def read(self) -> Record | None:
        """The record of the newest attempt, if there was one."""
        return read_own(Record, self.folder / f"{self.key}.json")

    def attempt(self) -> Attempt | None:
        """The newest start, if there was one."""
        return read_own(Attempt, self.attempt_path)

    @property
    def attempt_path(self) -> Path:
        return self.folder / f"{self.key}.attempt.json"

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.key}.log"

    def forget(self) -> None:
        """Remove what earlier attempts said, before a new one is queued."""
        for path in (self.folder / f"{self.key}.json", self.attempt_path):
            path.unlink(missing_ok=True)


def skip(job: Job, records: Mapping[str, Record]) -> Record | None:
    """The record of a job that cannot run because none that it needs is done; None if it can run."""
    states = [records[need].state for need in job.needs]
    if not states or "done" in states:
        return None
    return job.write(Record("skipped", f"protect {states[0]}"))


def execute(job: Job) -> Record:
    """Do the job with its output in its log, and leave its record. Never raises: a failure is a record with its reason.

    Every process of the job comes here. The first leaves the record; another only if it fails and the first is silent.
    """
    make_private(job.folder)
    begun = time.monotonic()
    before = job.read()
    with _log(job) as log, _alive(job) as attempt:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                results = _work(job)
            except Interrupted as error:
                record = Record("interrupted", str(error), results=Results(signal=error.number))
            except KeyboardInterrupt:
                record = Record("interrupted", "stopped")
            except OutOfReach as error:
                record = Record("skipped", str(error))
            except Exception as error:
                if explain(error) is None:
                    traceback.print_exc()
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                reason = missing_extra(error) or kind + " ".join(str(error).split())
                record = Record("failed", reason)
            else:
                # A job that was done before only looked at its files: what it took is what it took then.
                seconds = before.seconds if before and before.state == "done" else time.monotonic() - begun
                if results.spent is not None and isinstance(whole := results.spent.get("seconds"), int | float):
                    # Of all starts, not of this one.
                    seconds = whole
                record = Record("done", seconds=seconds, results=results)
        return _leave(job, replace(record, attempt=attempt))


def _work(job: Job) -> Results:
    if isinstance(job.work, TrialJob):
        return Results(run_trial(job.work))
    if isinstance(job.work, AuthorisedJob):
        return Results(run_authorised(job.work))
    if isinstance(job.work, ExploitJob):
        like = next((path for path in job.alike if path.is_dir()), None)
        return Results(run_exploit(replace(job.work, like=like)))
    release = run_protect(job.work)
    if rank() > 0:
        return Results()
    pictures = job.folder / f"{job.key}.npz"
    likeness = compare_images(release, job.work.data, job.work.size, pictures, Opener(job.work.cache))
    return Results(
        release=sha256_of(release / MANIFEST),
        psnr=likeness.psnr,
        ssim=likeness.ssim,
        roi_psnr=likeness.roi_psnr,
        pictures=str(pictures),
        similarity=likeness.similarity,
        spent=metrics_of(job.work),
    )


def _leave(job: Job, record: Record) -> Record:
    """Write the record, unless a newer attempt has the word, or (on other ranks) the first has said it."""
    if rank() > 0:
        if record.state != "failed":
            return record
        time.sleep(_PATIENCE_SECONDS)
        said = job.read()
        if said is not None and said.attempt == record.attempt:
            return record
    newest = job.attempt()
    if record.state != "done" and newest is not None and newest.name != record.attempt:
        return record
    return job.write(record)


@contextlib.contextmanager
def _log(job: Job) -> Iterator[TextIO]:
    """The log, kept open for more lines at its end: the first process's, or another's beside it."""
    path = job.log_path.with_suffix(f".rank{rank()}.log") if rank() else job.log_path
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", 1, "utf-8") as log:
        yield log


@contextlib.contextmanager
def _alive(job: Job) -> Iterator[str]:
    """This attempt's name, known to all its processes; within, its file's time is kept fresh."""
    slurm = os.environ.get("SLURM_JOB_ID")
    # A requeued job keeps its id; its first copy may still run.
    name = (
        f"{slurm}.{os.environ.get('SLURM_RESTART_COUNT', '0')}" if slurm else f"{host()}.{os.getpid()}.{time.time_ns()}"
    )
    if rank() > 0:
        yield name
        return
    write_private(job.attempt_path, json.dumps(asdict(Attempt(name, host(), os.getpid()))).encode())
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            newest = job.attempt()
            if newest is None or newest.name != name:
                return
            os.utime(job.attempt_path)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield name
    finally:
        ended.set()
        heart.join()
