"""A sweep: its jobs, those of them that are missing run here, and what comes of each cell."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launch.exploit import ExploitJob
from launch.grid import Cell, Sweep
from launch.jobs import Job, Record
from launch.pool import run_inline, run_side_by_side
from launch.protect import ProtectJob
from launch.protect_part import part_options
from launch.report import write_report
from launch.report.published import read_published
from launch.results import CellResult, Outcome
from launch.runs import canonical, make_private, write_private
from medveil.config import build
from medveil.errors import UserError
from medveil.version import versions


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep in an order in which they can run, and the jobs behind each cell."""

    jobs: list[Job]
    cells: list[tuple[Cell, str, str | None, str | None]]
    """Each cell with the keys of its protect job, its exploiter on clean data, and its exploiter on the release."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why the job of a key is not among ``jobs``."""


def plan(sweep: Sweep, folder: Path) -> Plan:
    """One protect job per distinct protector cell; its audits after it; one clean audit for all protectors alike."""
    cells = sweep.cells()
    protects = {cell: _protect_job(sweep, cell, folder) for cell in cells}
    # A clean audit learns from any release of its data and seed which samples it has: one failed protector is no loss.
    groups: dict[tuple[Any, ...], dict[str, Job]] = {}
    for cell, job in protects.items():
        groups.setdefault(_samples(cell), {})[job.key] = job
    audits: dict[str, Job] = {}
    planned = []
    for cell, protect in protects.items():
        clean = protected = None
        if cell.exploiter is not None:
            protected = _audit_job(sweep, cell, folder, [protect], clean=False)
            audits[protected.key] = protected
            if cell.exploiter.authorised is None:
                clean = _audit_job(sweep, cell, folder, list(groups[_samples(cell)].values()), clean=True)
                audits[clean.key] = clean
        planned.append((cell, protect.key, clean.key if clean else None, protected.key if protected else None))
    jobs = [*{job.key: job for job in protects.values()}.values(), *audits.values()]
    skipped = {
        key: f"no folder was given for {lacking} (--data {lacking}=FOLDER)"
        for cell, *keys in planned
        if (lacking := sweep.lacks(cell)) is not None
        for key in keys
        if key
    }
    return Plan([job for job in jobs if job.key not in skipped], planned, skipped)


def _samples(cell: Cell) -> tuple[Any, ...]:
    """What decides which samples a cell protects and tests on."""
    return cell.data, cell.size, cell.holdout, cell.seed


def _protect_job(sweep: Sweep, cell: Cell, folder: Path) -> Job:
    method = cell.method
    values = [cell.data, cell.size, cell.holdout, method.name, method.preset, dict(method.options), cell.seed]
    if method.part:
        values.append(dict(method.part))
    key = _key("protect", f"{cell.data}-{method.name}-s{cell.seed}", [*values, sweep.threads, sweep.precision])
    work = ProtectJob(
        method=method.name,
        data=sweep.place(cell.data),
        out=folder / "releases" / key,
        options=method.options,
        part=part_options(method.part, sweep.place),
        preset=method.preset,
        seed=cell.seed,
        size=cell.size,
        holdout=cell.holdout,
        threads=sweep.threads,
        precision=sweep.precision,
        device=sweep.device,
        cache=folder / "cache",
        checkpoint_seconds=sweep.checkpoint_seconds,
    )
    title = " ".join(["protect", cell.data, method.name, method.label, f"seed {cell.seed}"])
    return Job(key, " ".join(title.split()), work, folder / "jobs")


def _audit_job(sweep: Sweep, cell: Cell, folder: Path, protects: Sequence[Job], clean: bool) -> Job:
    assert cell.exploiter is not None
    exploiter, what = cell.exploiter, "clean" if clean else cell.method.name
    source = list(_samples(cell)) if clean else protects[0].key
    values = [
        source,
        exploiter.preset,
        dict(exploiter.options),
        cell.defence,
        cell.seed,
        sweep.threads,
        sweep.precision,
    ]
    if not clean and exploiter.part != "all":
        values.append(exploiter.part)
    if exploiter.authorised is not None:
        values.append({"authorised": exploiter.authorised})
    releases = tuple(folder / "releases" / job.key for job in protects)
    work = ExploitJob(
        run=folder / "audits",
        release=None if clean else releases[0],
        part="all" if clean else exploiter.part,
        original=sweep.place(cell.data),
        authorised=None if exploiter.authorised is None else sweep.place(exploiter.authorised),
        size=cell.size,
        holdout=cell.holdout,
        preset=exploiter.preset,
        options=exploiter.options,
        defence=cell.defence,
        seed=cell.seed,
        threads=sweep.threads,
        precision=sweep.precision,
        device=sweep.device,
        cache=folder / "cache",
        checkpoint_seconds=sweep.checkpoint_seconds,
    )
    options = "" if clean else cell.method.label
    title = f"audit {cell.data} {what} {options} {exploiter.label} {cell.defence} seed {cell.seed}"
    key = _key("audit", f"{cell.data}-{what}-s{cell.seed}", values)
    needs = tuple(job.key for job in protects)
    return Job(key, " ".join(title.split()), work, folder / "jobs", needs, releases if clean else ())


def _key(kind: str, words: str, values: Any) -> str:
    readable = "".join(c if c.isalnum() or c == "-" else "-" for c in Path(words).name)
    return f"{kind}-{readable}-{hashlib.sha256(canonical(values).encode()).hexdigest()[:8]}"


def results(plan: Plan, records: Mapping[str, Record]) -> list[CellResult]:
    """What the records say of every cell."""
    rows = []
    for cell, protect_key, clean_key, protected_key in plan.cells:
        ended = {
            key: records.get(key) or Record("skipped", plan.skipped.get(key, "not run yet"))
            for key in (protect_key, clean_key, protected_key)
            if key
        }
        protect, protected = ended[protect_key], ended.get(protected_key or protect_key, ended[protect_key])
        clean = ended.get(clean_key or "")
        failed = next((r for r in (protect, protected, clean) if r is not None and r.state != "done"), None)
        data, method, options, exploiter, defence, _ = cell.columns()
        rows.append(
            CellResult(
                data=data,
                protector=method,
                options=options,
                exploiter=exploiter,
                defence=defence,
                seed=cell.seed,
                status=(failed or protect).status,
                clean=_outcome(clean),
                protected=_outcome(protected if protected_key else None),
                psnr=protect.results.get("psnr"),
                ssim=protect.results.get("ssim"),
                seconds=protect.seconds + (protected.seconds if protected_key else 0.0),
                pictures=protect.results.get("pictures"),
                similarity=protect.results.get("similarity") or {},
                spent=protect.results.get("spent") or {},
                versions=versions(),
            )
        )
    return rows


def _outcome(record: Record | None) -> Outcome | None:
    return Outcome(**record.results["outcome"]) if record is not None and record.state == "done" else None


def prepare(sweep: Sweep, folder: Path) -> Plan:
    """Make the sweep's private folders and keep the sweep itself in them; returns its plan."""
    for path in (folder, *(folder / name for name in ("releases", "audits", "jobs", "cells", "slurm"))):
        make_private(path)
    write_private(folder / "sweep.json", (json.dumps(asdict(sweep), indent=1) + "\n").encode())
    return plan(sweep, folder)


def prepared(folder: Path) -> tuple[Sweep, Plan]:
    """The sweep that was last run in ``folder``, and its plan. Raises UserError where there is none."""
    kept = folder / "sweep.json"
    try:
        values = json.loads(kept.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} holds no sweep: name the folder of one, such as runs/demo") from error
    sweep = build(Sweep, values, str(kept))
    return sweep, plan(sweep, folder)


def publish(sweep: Sweep, folder: Path, planned: Plan, records: Mapping[str, Record]) -> list[CellResult]:
    """Keep every cell's result and write the report on those that there are; returns them all."""
    rows = results(planned, records)
    for row in rows:
        identity = canonical([row.data, row.protector, row.options, row.exploiter, row.defence, row.seed])
        cell = folder / "cells" / hashlib.sha256(identity.encode()).hexdigest()[:16]
        make_private(cell)
        row.save(cell / "result.json")
    if records:
        published = read_published(Path(sweep.published)) if sweep.published else None
        write_report(rows, folder / "report", sweep.name, published, conditions(sweep))
    return rows


def conditions(sweep: Sweep) -> str:
    """What a reader must know before they hold the sweep's values beside published ones; nothing without these."""
    if sweep.published is None:
        return ""
    sizes = sorted({cell.size for cell in sweep.cells() if cell.size is not None})
    ours = [f"preset {sweep.preset}"] if sweep.preset else []
    ours += [f"{' and '.join(map(str, sizes))} px"] if sizes else []
    ours.append(f"{'seed' if len(sweep.seeds) == 1 else 'seeds'} {', '.join(map(str, sweep.seeds))}")
    same = "data may differ" if sweep.preset == "paper" else "data may differ, and networks and length of training do"
    return f"Published: the papers' values, of their data and full settings. Ours: {', '.join(ours)}; {same}."


def run(sweep: Sweep, folder: Path) -> list[CellResult]:
    """Run what is missing of ``sweep`` in ``folder`` and report what is there; returns every cell's result.

    Under torchrun all its processes do each job together, one job after the other.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    planned = prepare(sweep, folder) if rank == 0 else plan(sweep, folder)
    records: dict[str, Record] = {}
    begun = time.monotonic()

    def listen(job: Job, record: Record) -> None:
        records[job.key] = record
        clock = time.strftime("%M:%S", time.gmtime(time.monotonic() - begun))
        if rank == 0:
            print(f"{clock} [{len(records)}/{len(planned.jobs)}] {job.title}: {record.status}", flush=True)

    try:
        if sweep.workers == 0 or world > 1:
            run_inline(planned.jobs, listen)
        else:
            workers = sweep.workers or max(1, (os.cpu_count() or 1) // sweep.threads)
            run_side_by_side(planned.jobs, workers, listen)
    finally:
        rows = publish(sweep, folder, planned, records) if rank == 0 else results(planned, records)
    return rows
