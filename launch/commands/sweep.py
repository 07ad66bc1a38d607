"""``medveil sweep``: a grid run here or on SLURM, and how a sweep stands."""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from medveil.errors import UserError
from medveil.launch.extras import require
from medveil.launch.jobs import squeue
from medveil.launch.jobs.sbatch import Slurm, preview, settings
from medveil.launch.jobs.status import standings
from medveil.launch.jobs.submit import submit
from medveil.launch.results import CellResult
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.follow import cancel, follow, show
from medveil.launch.sweeping.grid import SizePreset, Sweep, read_sweep
from medveil.launch.sweeping.plan import plan
from medveil.launch.sweeping.run import prepare, prepared, run

DEMO = Path(__file__).parents[1] / "sweeps" / "demo.yaml"

_SLURM = "slurm "
"""Before the name of a SLURM setting among the parsed arguments."""

_WAIT_MINUTES = 7 * 24 * 60


def add_arguments(parser: argparse.ArgumentParser, _: Sequence[str] = ()) -> None:
    parser.usage = "medveil sweep [SWEEP.yaml] [options] | medveil sweep status DIR | medveil sweep cancel DIR"
    parser.add_argument("what", nargs="*", metavar="SWEEP.yaml", help="default: the demo")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where sweeps are kept (default: runs)")
    parser.add_argument("--workers", type=int, help="runs side by side on this machine; 0: inline")
    parser.add_argument("--threads", type=int, help="CPU threads of each run")
    parser.add_argument(
        "--data",
        type=_folder,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where you have a data set that the sweep names; may be repeated",
    )
    parser.add_argument("--preset", choices=get_args(SizePreset), help="how large, of sweeps that leave it open")
    parser.add_argument("--seeds", type=_numbers, metavar="0,1,2", help="instead of the sweep's own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dry-run", action="store_true", help="only print the cells, one tab-separated line each")
    cluster = parser.add_argument_group("on a cluster (each also in the sweep's slurm: mapping)")
    cluster.add_argument(
        "--cluster", choices=("auto", "local", "slurm"), default="local", help="auto: SLURM where sbatch answers"
    )
    cluster.add_argument("--resume", action="store_true", help="go on with a sweep: run only what is unfinished")
    cluster.add_argument("--wait", action="store_true", help="stay until the sweep has ended, and show how it goes")
    cluster.add_argument(
        "--wait-minutes", type=float, default=_WAIT_MINUTES, metavar="N", help="stay no longer than this (a week)"
    )
    for name, metavar, text in (
        ("partition", "P", None),
        ("account", "A", None),
        ("qos", "Q", None),
        ("nodes", "N", "of one job"),
        ("gpus-per-node", "N", "one process on each"),
        ("tasks-per-node", "N", "processes on a node without GPUs"),
        ("cpus-per-task", "N", "of one process (default: --threads)"),
        ("memory", "64G", "of a node"),
        ("time", "MINUTES", "limit of one job, also as hours:minutes:seconds"),
        ("constraint", "C", None),
        ("max-parallel", "N", "jobs at a time"),
        ("warning-seconds", "S", "between the warning and the time limit"),
        ("requeues", "N", "how often a job that was told to stop goes back to the queue"),
    ):
        cluster.add_argument(f"--{name}", dest=_SLURM + name.replace("-", "_"), metavar=metavar, help=text)
    for name, metavar, text in (
        ("sbatch", "--OPTION", "another sbatch option, as --sbatch=--exclusive; may be repeated"),
        ("setup", "LINE", "a shell line before Python starts, such as a module load; may be repeated"),
    ):
        cluster.add_argument(f"--{name}", dest=_SLURM + name, metavar=metavar, action="append", help=text)


def main(args: argparse.Namespace) -> int:
    # Releases, reports and logs of a sweep hold what may not be shown; what is to be published is copied from them.
    os.umask(0o077)
    if args.what[:1] in (["status"], ["cancel"]):
        if len(args.what) != 2:
            raise UserError(f"medveil sweep {args.what[0]} takes the folder of one sweep, such as runs/demo")
        return (show if args.what[0] == "status" else cancel)(*prepared(SweepFolder(Path(args.what[1]).absolute())))
    if len(args.what) > 1:
        raise UserError(f"medveil sweep takes one sweep file, not {len(args.what)}: {' '.join(args.what)}")
    changes = {key: getattr(args, key) for key in ("workers", "threads", "seeds", "device", "preset")}
    changes["folders"] = dict(args.data)
    file = Path(args.what[0]) if args.what else DEMO
    sweep = read_sweep(file, {key: value for key, value in changes.items() if value is not None})
    _check_folders(sweep, dict(args.data), file, args.dry_run)
    slurm = settings(sweep.slurm, _told(args, sweep), str(file))
    folder = SweepFolder((args.runs / sweep.name).absolute())
    on_slurm = args.cluster == "slurm" or (args.cluster == "auto" and squeue.available())
    if args.dry_run:
        print(dry_run(sweep, folder, slurm if on_slurm else None))
        return 0
    require("report")
    if on_slurm:
        require("cluster")
        return _on_slurm(sweep, folder, slurm, args.resume, args.wait_minutes if args.wait else None)
    return _say_results(run(sweep, folder), folder)


def _check_folders(sweep: Sweep, told: Mapping[str, str], file: Path, dry: bool) -> None:
    named = {name for cell in sweep.cells() for name in cell.names()}
    for name in told:
        if name not in named:
            raise UserError(f"--data {name}={told[name]}: {file} names no such data, only {', '.join(sorted(named))}")
    missing = sorted(name for name in named if sweep.missing(name))
    if dry or not missing:
        return
    if len(missing) == len(named):
        raise UserError(
            f"{file} needs to know where you have its data: {' '.join(f'--data {m}=FOLDER' for m in missing)}"
        )
    print(f"skipped, as no folder was given: {' '.join(f'--data {m}=FOLDER' for m in missing)}", file=sys.stderr)


def dry_run(sweep: Sweep, folder: SweepFolder, slurm: Slurm | None) -> str:
    """One tab-separated line per cell; on SLURM the sbatch text after them."""
    lines = ["\t".join(cell.columns()) for cell in sweep.cells()]
    if slurm is not None:
        jobs = plan(sweep, folder).jobs
        lines += ["", preview(slurm, sweep.name, sweep.threads, jobs, folder.submissions.next_folder())]
    return "\n".join(lines)


def _on_slurm(sweep: Sweep, folder: SweepFolder, slurm: Slurm, resume: bool, wait_minutes: float | None) -> int:
    if folder.submissions.ids() and not resume:
        raise UserError(
            f"{folder.path} was submitted before: medveil sweep status {folder.path} tells how it stands, and the same "
            "command with --resume submits what is unfinished"
        )
    if squeue.queue() is None:
        raise UserError("SLURM does not answer here (squeue): run this where sbatch works, or take --cluster local")
    planned = prepare(sweep, folder)
    stands = standings(planned.jobs, folder.submissions)
    ids = folder.submissions.ids()
    active = {key: ids[key] for key, standing in stands.items() if standing.queued}
    jobs = [job for job in planned.jobs if job.key not in active and stands[job.key].state not in ("done", "running")]
    if jobs:
        found = submit(jobs, slurm, sweep.name, sweep.threads, folder.submissions.next_folder(), active)
        arrays = sorted({job.split("_")[0] for job in found.values()}, key=int)
        print(f"submitted {len(jobs)} jobs of {len(planned.jobs)} as SLURM jobs {', '.join(arrays)}", flush=True)
    else:
        print(f"nothing to submit: {len(active)} jobs are queued, the others are done", flush=True)
    if wait_minutes is None:
        print(f"medveil sweep status {folder.path}")
        return 0
    if not follow(planned, time.monotonic() + 60 * wait_minutes):
        print(f"not ended after {wait_minutes:g} minutes: medveil sweep status {folder.path}", file=sys.stderr)
        return 1
    return show(sweep, planned)


def _told(args: argparse.Namespace, sweep: Sweep) -> dict[str, Any]:
    """The SLURM settings of the command line; its lines come after those of the file."""
    told = {key.removeprefix(_SLURM): value for key, value in vars(args).items() if key.startswith(_SLURM)}
    kept = {key: value for key, value in told.items() if value is not None}
    for key in {"sbatch", "setup"} & set(kept):
        before = sweep.slurm.get(key, [])
        kept[key] = [*(before if isinstance(before, list) else [before]), *kept[key]]
    return kept


def _say_results(rows: Sequence[CellResult], folder: SweepFolder) -> int:
    failed = [row for row in rows if row.status != "done" and not row.status.startswith("skipped: no folder")]
    if os.environ.get("RANK", "0") == "0":
        print((folder.report / "results.md").read_text())
        print(f"report: {folder.page} (holds original images: keep it private)")
    if any(row.status.startswith("interrupted") for row in failed):
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    if failed:
        print(f"{len(failed)} of {len(rows)} cells are not done; their reasons are in the report", file=sys.stderr)
        return 1
    return 0


def _folder(text: str) -> tuple[str, str]:
    name, _, place = text.partition("=")
    if not name or not place:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FOLDER, such as kvasir-seg=data/Kvasir-SEG")
    return name, place


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1,2") from None
