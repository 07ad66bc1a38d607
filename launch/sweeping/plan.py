"""A sweep: its jobs, those of them that are missing run here, and what comes of each cell."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from medveil.launch.audit.authorised import AuthorisedJob
from medveil.launch.audit.train import ExploitJob, Place
from medveil.launch.exploiters.config import Preset
from medveil.launch.jobs.job import Job
from medveil.launch.jobs.trials import MORE_SEEDS
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.part import part_options
from medveil.launch.running.files import canonical
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.grid import Cell, Sweep


@dataclass(frozen=True)
class SweepPlan:
    """The jobs of a sweep in ``folder``, in an order in which they can run, and the jobs behind each cell."""

    folder: SweepFolder
    jobs: list[Job]
    cells: list[tuple[Cell, str, str | None, str | None]]
    """Each cell with the keys of its protect job, its exploiter on clean data, and its exploiter on the release."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why the job of a key is not among ``jobs``."""


def plan(sweep: Sweep, folder: SweepFolder) -> SweepPlan:
    """One protect job per distinct protector cell; its audits after it; one clean audit for all protectors alike; and
    what the folder says is trained with more seeds.
    """
    cells = sweep.cells()
    chosen = set(folder.deepened())
    cells += [more for cell in cells if cell.deepens and chosen for more in _deeper(sweep, cell, folder, chosen)]
    protects = {cell: _protect_job(sweep, cell, folder) for cell in cells}
    # A clean audit learns from any release of its data and seed which samples it has: one failed protector is no loss.
    groups: dict[tuple[Any, ...], dict[str, Job]] = defaultdict(dict)
    for cell, job in protects.items():
        if sweep.lacks(cell) is None:
            groups[_samples(cell)][job.key] = job
    audits: dict[str, Job] = {}
    planned = []
    for cell, protect in protects.items():
        clean = protected = None
        if cell.exploiter is not None:
            protected = _audit_job(sweep, cell, folder, [protect], clean=False)
            audits[protected.key] = protected
            # With more seeds the originals are trained on without an attack alone, as in an audit.
            if cell.exploiter.authorised is None and (not cell.more or cell.attack == "none"):
                clean = _audit_job(sweep, cell, folder, list(groups[_samples(cell)].values()), clean=True)
                audits[clean.key] = clean
        planned.append((cell, protect.key, clean.key if clean else None, protected.key if protected else None))
    jobs = _in_order(
        {job.key: job for job in protects.values()} | audits, [key for _, *keys in planned for key in keys]
    )
    # Of a cell that lacks data some jobs may be those of others, which do not.
    wanted = {key for cell, *keys in planned if sweep.lacks(cell) is None for key in keys}
    skipped = {
        key: f"no folder was given for {lacking} (--data {lacking}=FOLDER)"
        for cell, *keys in planned
        if (lacking := sweep.lacks(cell)) is not None
        for key in keys
        if key and key not in wanted
    }
    return SweepPlan(folder, [job for job in jobs if job.key not in skipped], planned, skipped)


def _deeper(sweep: Sweep, cell: Cell, folder: SweepFolder, chosen: Set[str]) -> list[Cell]:
    """The cell with more seeds, if it is among ``chosen`` (:mod:`medveil.launch.sweeping.deeper`)."""
    job = _audit_job(sweep, cell, folder, [_protect_job(sweep, cell, folder)], clean=False)
    if job.key not in chosen:
        return []
    return [replace(cell, more=more) for more in range(1, MORE_SEEDS + 1)]


def _in_order(jobs: Mapping[str, Job], keys: Sequence[str | None]) -> list[Job]:
    """``jobs`` in the order of ``keys``, each put off until all that it needs stands before it.

    So the cells of a sweep that is cut short are finished in the order in which it lists them.
    """
    waiting = [key for key in dict.fromkeys(keys) if key is not None]
    ordered: dict[str, Job] = {}
    while waiting:
        key = next(key for key in waiting if ordered.keys() >= set(jobs[key].needs))
        ordered[key] = jobs[key]
        waiting.remove(key)
    return list(ordered.values())


def _samples(cell: Cell) -> tuple[Any, ...]:
    """What decides which samples a cell protects and tests on."""
    return cell.data, cell.size, cell.holdout, cell.seed


def _protect_job(sweep: Sweep, cell: Cell, folder: SweepFolder) -> Job:
    method = cell.method
    values = [cell.data, cell.size, cell.holdout, method.name, method.preset, dict(method.options), cell.seed]
    if method.part:
        values.append(dict(method.part))
    key = _key("protect", f"{cell.data}-{method.name}-s{cell.seed}", [*values, sweep.threads, sweep.precision])
    work = ProtectJob(
        method=method.name,
        data=sweep.place(cell.data),
        out=folder.releases / key,
        options=method.options,
        part=part_options(method.part, sweep.place),
        preset=method.preset,
        seed=cell.seed,
        size=cell.size,
        holdout=cell.holdout,
        threads=sweep.threads,
        precision=sweep.precision,
        device=sweep.device,
        cache=folder.cache,
        checkpoint_seconds=sweep.checkpoint_seconds,
    )
    title = " ".join(["protect", cell.data, method.name, str(method.shown), f"seed {cell.seed}"])
    return Job(key, " ".join(title.split()), work, folder.jobs)


def _audit_job(sweep: Sweep, cell: Cell, folder: SweepFolder, protects: Sequence[Job], clean: bool) -> Job:
    assert cell.exploiter is not None
    exploiter, what = cell.exploiter, "clean" if clean else cell.method.name
    source = list(_samples(cell)) if clean else protects[0].key
    trained = {**exploiter.options, "model": exploiter.model}
    values = [
        source,
        exploiter.preset,
        trained,
        cell.attack,
        cell.training_seed,
        sweep.threads,
        sweep.precision,
    ]
    if not clean and exploiter.part != "all":
        values.append(exploiter.part)
    if exploiter.authorised is not None:
        values.append({"authorised": exploiter.authorised})
    releases = tuple(folder.releases / job.key for job in protects)
    place = Place(
        runs=folder.audits,
        device=sweep.device,
        threads=sweep.threads,
        precision=sweep.precision,
        cache=folder.cache,
        checkpoint_seconds=sweep.checkpoint_seconds,
    )
    preset = cast(Preset, exploiter.preset)
    work: ExploitJob | AuthorisedJob
    if exploiter.authorised is not None:
        work = AuthorisedJob(
            place=place,
            trained_on=sweep.place(exploiter.authorised),
            release=releases[0],
            original=sweep.place(cell.data),
            size=cell.size,
            preset=preset,
            options=trained,
            seed=cell.seed,
        )
    else:
        work = ExploitJob(
            place=place,
            release=None if clean else releases[0],
            part="all" if clean else exploiter.part,
            original=sweep.place(cell.data),
            size=cell.size,
            holdout=cell.holdout,
            preset=preset,
            options=trained,
            attack=cell.attack,
            seed=cell.training_seed,
        )
    options = "" if clean else cell.method.shown
    title = f"audit {cell.data} {what} {options} {exploiter} {cell.attack} seed {cell.training_seed}"
    key = _key("audit", f"{cell.data}-{what}-s{cell.training_seed}", values)
    needs = tuple(job.key for job in protects)
    return Job(key, " ".join(title.split()), work, folder.jobs, needs, releases if clean else ())


def _key(kind: str, words: str, values: Any) -> str:
    readable = "".join(c if c.isalnum() or c == "-" else "-" for c in Path(words).name)[:45]
    return f"{kind}-{readable}-{hashlib.sha256(canonical(values).encode()).hexdigest()[:8]}"
