"""``medveil sweep``: its flags, those of its settings and SLURM's, and the sweep that they describe."""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from medveil.config import plain
from medveil.errors import UserError
from medveil.launch.commands.flags import Flags, peek
from medveil.launch.jobs.slurm import Slurm
from medveil.launch.sweeping.grid import Sweep, read_sweep

DEMO = Path(__file__).parents[1] / "sweeps" / "demo.yaml"

_IN_THE_FILE = ("name", "grid", "presets", "folders", "published", "slurm")
"""Fields of Sweep that are no flags."""

_SWEEP, _SETTINGS = "sweep", "instead of what the sweep says"
_CLUSTER = "on a cluster (each also in the sweep's slurm: mapping)"

_CLUSTERS = ("auto", "local", "slurm")

_WAIT_MINUTES = 7 * 24 * 60


def add_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] = ()) -> None:
    """The flags of ``medveil sweep``."""
    parser.usage = "medveil sweep [SWEEP.yaml] [options] | medveil sweep status DIR | medveil sweep cancel DIR"
    flags = Flags(parser, _SWEEP, _SETTINGS, _CLUSTER)
    settings, slurm = _defaults(argv)
    add = flags.under(_SWEEP).add_argument
    add("what", nargs="*", metavar="SWEEP.yaml", help="a grid of data, protectors and exploiters (default: the demo)")
    add(
        "--data",
        type=_folder,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where you have a data set that the sweep names; may be repeated",
    )
    add("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where sweeps are kept (default: runs)")
    add("--dry-run", action="store_true", help="only print the cells, one tab-separated line each")
    flags.add(Sweep, _SETTINGS, skip=_IN_THE_FILE, defaults=settings)
    add = flags.under(_CLUSTER).add_argument
    where = "where it runs; auto: on SLURM where sbatch answers (default: local)"
    add("--cluster", choices=_CLUSTERS, default="local", metavar="|".join(_CLUSTERS), help=where)
    add("--resume", action="store_true", help="go on with a sweep: run only what is unfinished")
    add("--wait", action="store_true", help="stay until the sweep has ended, and show how it goes")
    add("--wait-minutes", type=_minutes, default=_WAIT_MINUTES, metavar="N", help="stay no longer than this (a week)")
    flags.add(Slurm, _CLUSTER, skip=("audits",), defaults=slurm)


def main(args: argparse.Namespace) -> int:
    """Run ``medveil sweep``; returns 0 when every cell is done."""
    from medveil.launch.sweeping.start import Start, look, start

    # Releases, reports and logs of a sweep hold what may not be shown; what is to be published is copied from them.
    os.umask(0o077)
    if args.what[:1] in (["status"], ["cancel"]):
        if len(args.what) != 2:
            raise UserError(f"medveil sweep {args.what[0]} takes the folder of one sweep, such as runs/demo")
        return look(Path(args.what[1]), args.what[0])
    if len(args.what) > 1:
        raise UserError(f"medveil sweep takes one sweep file, not {len(args.what)}: {' '.join(args.what)}")
    return start(
        Start(
            file=Path(args.what[0]) if args.what else DEMO,
            runs=args.runs,
            changes=Flags.given(args, Sweep),
            folders=dict(args.data),
            slurm=Flags.given(args, Slurm),
            cluster=args.cluster,
            resume=args.resume,
            wait_minutes=args.wait_minutes if args.wait else None,
            dry_run=args.dry_run,
        )
    )


def _defaults(argv: Sequence[str]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """For help: what the sweep that ``argv`` names says of itself, and of SLURM."""
    if not {"-h", "--help"} & set(argv):
        return {}, {}
    file = peek(argv, Sweep, Slurm)["positional"]
    try:
        sweep = read_sweep(Path(file) if file else DEMO)
    except UserError:
        return dict.fromkeys(item.name for item in fields(Sweep)), {}
    return plain(sweep), sweep.slurm


def _folder(text: str) -> tuple[str, str]:
    name, _, place = text.partition("=")
    if not name or not place:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FOLDER, such as kvasir-seg=data/Kvasir-SEG")
    return name, place


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes such as 90")
    return minutes
