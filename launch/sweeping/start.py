"""A sweep begun from a person's words: listed, run here, or given to SLURM."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medveil.errors import UserError
from medveil.launch.extras import require
from medveil.launch.jobs import squeue
from medveil.launch.jobs.sbatch import preview
from medveil.launch.jobs.slurm import Slurm, settings
from medveil.launch.jobs.status import standings
from medveil.launch.jobs.submit import submit
from medveil.launch.ranks import rank
from medveil.launch.results import CellResult
from medveil.launch.sweeping.deeper import deepened
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.follow import cancel, follow, show
from medveil.launch.sweeping.grid import Sweep, read_sweep
from medveil.launch.sweeping.outcome import is_no_failure
from medveil.launch.sweeping.plan import SweepPlan, plan
from medveil.launch.sweeping.run import prepare, prepared, run

Cluster = Literal["auto", "local", "slurm"]


@dataclass(frozen=True)
class Start:
    """``changes``: of the sweep's own settings. ``folders``: where its data is. ``slurm``: over its ``slurm:`` mapping.

    ``wait_minutes``: None does not wait for SLURM's jobs.
    """

    file: Path
    runs: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)
    cluster: Cluster = "local"
    resume: bool = False
    wait_minutes: float | None = None
    dry_run: bool = False


def start(told: Start) -> int:
    """Do what ``told`` says; returns the exit code. Raises UserError for what does not fit together."""
    sweep = read_sweep(told.file, {**told.changes, "folders": dict(told.folders)})
    _check_folders(sweep, told)
    slurm = settings(sweep.slurm, _lines_added(sweep, told.slurm), str(told.file))
    folder = SweepFolder((told.runs / sweep.name).absolute())
    on_slurm = told.cluster == "slurm" or (told.cluster == "auto" and squeue.available())
    if told.dry_run:
        print(dry_run(sweep, folder, slurm if on_slurm else None))
        return 0
    require("report")
    if on_slurm:
        require("cluster")
        return _on_slurm(sweep, folder, slurm, told)
    return _say_results(run(sweep, folder), folder)


def look(folder: Path, what: Literal["status", "cancel"]) -> int:
    """How the sweep in ``folder`` stands, or its end."""
    return (show if what == "status" else cancel)(*prepared(SweepFolder(folder.absolute())))


def dry_run(sweep: Sweep, folder: SweepFolder, slurm: Slurm | None) -> str:
    """One tab-separated line per cell; on SLURM the sbatch text after them."""
    lines = ["\t".join(cell.columns()) for cell in sweep.cells()]
    if slurm is not None:
        jobs = plan(sweep, folder).jobs
        lines += ["", preview(slurm, sweep.name, sweep.threads, jobs, folder.submissions.next_folder())]
    return "\n".join(lines)


def _check_folders(sweep: Sweep, told: Start) -> None:
    cells, named = sweep.cells(), sweep.names()
    for name, place in told.folders.items():
        if name not in named:
            raise UserError(f"--data {name}={place}: {told.file} names no such data, only {', '.join(sorted(named))}")
    missing = sorted({name for cell in cells for name in cell.names() if sweep.missing(name)})
    if told.dry_run or not missing:
        return
    wanted = " ".join(f"--data {name}=FOLDER" for name in missing)
    if all(sweep.lacks(cell) for cell in cells):
        raise UserError(f"{told.file} needs to know where you have its data: {wanted}")
    print(f"skipped, as no folder was given: {wanted}", file=sys.stderr)


def _lines_added(sweep: Sweep, slurm: Mapping[str, Any]) -> dict[str, Any]:
    """The SLURM settings of the command line; its lines come after those of the file."""
    kept = dict(slurm)
    for key in {"sbatch", "setup"} & set(kept):
        before = sweep.slurm.get(key, [])
        kept[key] = [*(before if isinstance(before, list) else [before]), *kept[key]]
    return kept


def _on_slurm(sweep: Sweep, folder: SweepFolder, slurm: Slurm, told: Start) -> int:
    if folder.submissions.ids() and not told.resume:
        raise UserError(
            f"{folder.path} was submitted before: medveil sweep status {folder.path} tells how it stands, and the same "
            "command with --resume submits what is unfinished"
        )
    if squeue.queue() is None:
        raise UserError("SLURM does not answer here (squeue): run this where sbatch works, or take --cluster local")
    planned = deepened(sweep, prepare(sweep, folder))
    with folder.submissions.alone():
        _submit(sweep, planned, folder, slurm)
    if told.wait_minutes is None:
        print(f"medveil sweep status {folder.path}")
        return 0
    if not follow(planned, time.monotonic() + 60 * told.wait_minutes):
        print(f"not ended after {told.wait_minutes:g} minutes: medveil sweep status {folder.path}", file=sys.stderr)
        return 1
    if deepened(sweep, planned) is not planned:
        return _on_slurm(sweep, folder, slurm, replace(told, resume=True))
    return show(sweep, planned)


def _submit(sweep: Sweep, planned: SweepPlan, folder: SweepFolder, slurm: Slurm) -> None:
    """Queue what is neither done nor queued, and say so."""
    stands = standings(planned.jobs, folder.submissions)
    ids = folder.submissions.ids()
    active = {key: ids[key] for key, standing in stands.items() if standing.queued}
    jobs = [job for job in planned.jobs if job.key not in active and stands[job.key].state not in ("done", "running")]
    if not jobs:
        print(f"nothing to submit: {len(active)} jobs are queued, the others are done", flush=True)
        return
    found = submit(jobs, slurm, sweep.name, sweep.threads, folder.submissions.next_folder(), active)
    arrays = sorted({job.split("_")[0] for job in found.values()}, key=int)
    print(f"submitted {len(jobs)} jobs of {len(planned.jobs)} as SLURM jobs {', '.join(arrays)}", flush=True)


def _say_results(rows: Sequence[CellResult], folder: SweepFolder) -> int:
    failed = [row for row in rows if row.status != "done" and not is_no_failure(row.status)]
    if rank() == 0:
        print((folder.report / "results.md").read_text("utf-8"))
        print(f"report: {folder.page} (holds original images: keep it private)")
    if any(row.status.startswith("interrupted") for row in failed):
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    if failed:
        print(f"{len(failed)} of {len(rows)} cells are not done; their reasons are in the report", file=sys.stderr)
        return 1
    return 0
