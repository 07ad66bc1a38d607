"""``medveil audit``: its flags, and the audit that they describe."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from medveil.config import plain
from medveil.launch.audit.config import EXPLOITER, TRAINING, WHAT, WHERE, Audit
from medveil.launch.commands.flags import DRY_RUN, Flags, peek
from medveil.launch.data.config import MEDICAL, Reading
from medveil.launch.data.layout import layout_of
from medveil.launch.exploiters.config import ExploiterConfig, Preset, exploiter_config
from medveil.launch.ranks import rank
from medveil.launch.running.machine import HERE, usual_preset

_OWN_LISTS = ("model", "seed")
"""Fields of ExploiterConfig that are flags of their own, with several values."""


def add_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] = ()) -> None:
    """The flags of ``medveil audit``."""
    parser.usage = "medveil audit RELEASE [--original DATA] [--test DATA] [--exploiter LIST] [--attacks LIST] [options]"
    flags = Flags(parser, WHAT, WHERE, EXPLOITER, TRAINING, MEDICAL, HERE)
    flags.under(WHAT).add_argument("release", type=Path, metavar="RELEASE", help="a release, or images with --original")
    flags.add(Audit)
    flags.add(Reading)
    flags.under(WHERE).add_argument("--dry-run", action="store_true", help=DRY_RUN)
    known = peek(argv, Audit, Reading, ExploiterConfig)
    flags.add(ExploiterConfig, TRAINING, skip=_OWN_LISTS, defaults=_defaults(known))
    if known["positional"] is None:
        parser.epilog = "Defaults of the training: medveil audit RELEASE --help"


def main(args: argparse.Namespace) -> int:
    """``medveil audit``: records under OUT, a table on the screen; returns 0 when every training is done."""
    from medveil.launch.errors import tell
    from medveil.launch.jobs.audit import run_audit
    from medveil.launch.report.screen import headline

    reading = Reading(**Flags.given(args, Reading))
    audit = Audit(args.release, options=Flags.given(args, ExploiterConfig), reading=reading, **Flags.given(args, Audit))
    cells = run_audit(audit, dry_run=args.dry_run)
    if cells and rank() == 0:
        kept = f"records, not to be published: {audit.folder}"
        tell("\n".join([*headline(cells), kept, f"a page of tables and pictures: medveil report {audit.folder}"]))
    return 0


def _defaults(known: Mapping[str, str | None]) -> Mapping[str, Any]:
    """Of the training that will run, where the release is told; else none is shown."""
    layout = None if known["positional"] is None else layout_of(known["positional"])
    preset = usual_preset(known["device"]) if known["preset"] in (None, "auto") else known["preset"]
    if layout is None or preset not in ("cpu", "gpu", "paper"):
        return dict.fromkeys(item.name for item in fields(ExploiterConfig))
    size = known["size"] or ""
    side = int(size) if size.isdecimal() else layout.side()
    return plain(exploiter_config(layout.task, cast(Preset, preset), (side, side)))
