"""``medveil check``: its flags, and what it says of a data set before it is protected."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.commands.flags import Flags, a_method
from medveil.launch.data.config import MEDICAL, Reading
from medveil.launch.data.layout import layout_of
from medveil.launch.protect.config import DATA, HOW, WHAT, ProtectJob, beside
from medveil.launch.protect.methods import method_for
from medveil.launch.running.machine import HERE

_SHOWN = 10
"""Of names and near-duplicates; of files that would be refused all are shown."""

_METHOD = "for the estimate of the time; FILE.py: a protector of your own"

_ASKED = ("size", "preset", "device", "threads")


def add_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] = ()) -> None:
    """The flags of ``medveil check``."""
    parser.usage = "medveil check FOLDER [options]"
    flags = Flags(parser, WHAT, HOW, MEDICAL, HERE)
    flags.under(WHAT).add_argument("data", metavar="FOLDER", help=DATA)
    flags.under(HOW).add_argument("--method", type=a_method, metavar="METHOD", help=_METHOD)
    skip = [item.name for item in fields(ProtectJob) if item.name not in _ASKED]
    flags.add(ProtectJob, skip=skip, defaults={"preset": "auto"})
    flags.add(Reading)


def main(args: argparse.Namespace) -> int:
    """Run ``medveil check``; returns 1 when anything would be refused.

    Raises UserError where ``FOLDER`` names no data at all.
    """
    from medveil.launch.data import Opener
    from medveil.launch.errors import tell
    from medveil.launch.protect.input import method_by_opening
    from medveil.launch.protect.preview import about

    data: str = args.data
    path = Path(data).expanduser()
    on_disk = path.is_dir() or (path.is_file() and path.suffix == ".npz")
    layout = layout_of(data)
    headline = f"{data}: {'nothing that is recognised' if layout is None else layout}"
    refused: dict[Path, str] = {}
    if on_disk:
        tell(headline)
    if layout is not None and layout.images:
        from medveil.launch.data.checking import look_through

        found = look_through(path)
        refused = found.refused
        sizes = [f"{width}x{height} ({count})" for (width, height), count in found.sizes.most_common()]
        tell(f"sizes: {', '.join(sizes[:_SHOWN])}{', ...' if len(sizes) > _SHOWN else ''}")
        tell(f"depth: {', '.join(f'{depth} ({count})' for depth, count in found.depths.most_common())}")
        tell(_listed("names that may be a patient's", [f"{path}: {sign}" for path, sign in found.telling.items()]))
        if found.odd:
            tell(_listed(found.odd_kind, list(map(str, found.odd))))
        tell(_listed("near-duplicates, by perceptual hash", [f"{one} and {other}" for one, other in found.alike]))
    asked = {"preset": "auto", "reading": Reading(**Flags.given(args, Reading)), **Flags.given(args, ProtectJob)}
    try:
        # Opening the data has the last word: of the layout, and of files that are looked at together.
        opener = Opener(reading=asked["reading"])
        method = args.method or method_for(data) or method_by_opening(data, opener, asked.get("size"))
        notes, took = about(ProtectJob(method, data, beside(data), **asked))
    except UserError as error:
        if not on_disk:
            # A wrong name is no fault of the data.
            raise
        lines = list(refused.values())
        if not any(f"{path} " in str(error) for path in refused):
            lines.append(str(error))
        tell("\n".join([f"would be refused: {len(lines)}", *(f"  {line}" for line in lines)]))
        return 1
    if not on_disk:
        tell(headline)
    if layout is not None and not layout.images:
        # Of pictures all of it was said above.
        tell("\n".join(notes))
    tell(f"nothing would be refused\nprotecting it with {method} takes {took}")
    return 0


def _listed(heading: str, lines: Sequence[str]) -> str:
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([f"{heading}: {len(lines) or 'none'}", *(f"  {line}" for line in lines[:_SHOWN]), *more])
