"""What comes of each cell of a sweep, and the report on them."""

from collections.abc import Mapping
from pathlib import Path

from medveil.launch.jobs.job import Record
from medveil.launch.report.published import read_published
from medveil.launch.report.records import write_record
from medveil.launch.report.write import write_report
from medveil.launch.results import CellResult, Outcome
from medveil.launch.sweeping.grid import Sweep
from medveil.launch.sweeping.plan import SweepPlan
from medveil.version import versions


def results(plan: SweepPlan, records: Mapping[str, Record]) -> list[CellResult]:
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
        rows.append(
            CellResult(
                data=cell.data,
                protector=cell.method.name,
                options=cell.method.shown,
                exploiter=cell.exploiter,
                attack=cell.attack,
                seed=cell.training_seed,
                status=(failed or protect).status,
                clean=_outcome(clean),
                protected=_outcome(protected if protected_key else None),
                psnr=protect.results.psnr,
                ssim=protect.results.ssim,
                roi_psnr=protect.results.roi_psnr,
                seconds=protect.seconds + (protected.seconds if protected_key else 0.0),
                pictures=protect.results.pictures,
                similarity=protect.results.similarity,
                spent=protect.results.spent or {},
                versions=versions(),
                release=protect.results.release,
                release_name=protect_key,
            )
        )
    return rows


def is_no_failure(status: str) -> bool:
    """Whether ``status`` says that the cell cannot be run: its data was not named, or its attack is out of reach."""
    return status.startswith(("skipped: no folder", "skipped: --attacks"))


def _outcome(record: Record | None) -> Outcome | None:
    return record.results.outcome if record is not None and record.state == "done" else None


def publish(sweep: Sweep, planned: SweepPlan, records: Mapping[str, Record]) -> list[CellResult]:
    """Keep every cell's result and write the report on those that there are; returns them all."""
    rows = results(planned, records)
    for row in rows:
        write_record(row, planned.folder.cells / row.folder_name)
    if records:
        published = read_published(Path(sweep.published)) if sweep.published else None
        write_report(rows, planned.folder.report, sweep.name, published, conditions(sweep), sweep.laid_out())
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
