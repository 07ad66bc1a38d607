"""The records of finished and failed cells: written into a folder of runs, and read from all that lie in one."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.results import CellResult, Exploiter, Options
from medveil.launch.running.files import make_private, write_private

RECORD = "result.json"

Key = tuple[str, str, Options, Exploiter | None, str, int]


def cell_key(result: CellResult) -> Key:
    """What makes a cell the same cell in two records."""
    return (result.data, result.protector, result.options, result.exploiter, result.attack, result.seed)


def write_record(result: CellResult, folder: Path) -> Path:
    """Write the record of ``result`` into the private ``folder``, and return where it is."""
    make_private(folder)
    write_private(folder / RECORD, (json.dumps(asdict(result), indent=1) + "\n").encode())
    return folder / RECORD


def read_records(folder: Path) -> list[CellResult]:
    """The records (files named ``result.json``) anywhere under ``folder``, one a cell.

    Records of one release are told by its manifest's sha256, and called what the record with the most options calls it:
    a sweep knows more of it than an audit does. Where several records are of the same cell, a finished one is taken
    before a failed one, and a later path before an earlier. Different releases that would be called alike get their
    folder's name too. ``pictures`` come back as paths that open from here. Raises :class:`UserError` when there is no
    such folder, no record in it, or a record that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the one that holds the runs, for example runs/demo")
    records = [_load(path) for path in sorted(folder.rglob(RECORD))]
    if not records:
        raise UserError(f"{folder} holds no {RECORD}; name a folder of runs made by 'medveil audit' or 'medveil sweep'")
    found: dict[Key, CellResult] = {}
    for result in _told_apart(_named(records)):
        known = found.get(cell_key(result))
        if known is None or result.status == "done" or known.status != "done":
            found[cell_key(result)] = result
    return [found[key] for key in sorted(found, key=lambda key: (*map(str, key[:-1]), key[-1]))]


def _named(records: Sequence[CellResult]) -> list[CellResult]:
    """Every release by one name."""
    names: dict[str, CellResult] = {}
    for record in records:
        known = names.get(record.release)
        if record.release and (known is None or len(record.options) > len(known.options)):
            names[record.release] = record
    return [
        replace(record, data=name.data, protector=name.protector, options=name.options)
        if (name := names.get(record.release)) is not None
        else record
        for record in records
    ]


def _told_apart(records: Sequence[CellResult]) -> list[CellResult]:
    """Cells that are alike but for their release, with its folder's name among their options."""
    releases: dict[Key, set[str]] = defaultdict(set)
    for record in records:
        if record.release:
            releases[cell_key(record)].add(record.release)
    doubled = {release for some in releases.values() if len(some) > 1 for release in some}
    return [
        replace(record, options=Options({**record.options, "release": record.release_name}))
        if record.release in doubled
        else record
        for record in records
    ]


def _load(path: Path) -> CellResult:
    try:
        result = CellResult.load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is a link to nothing: remove it or run its cell again") from None
    return replace(result, pictures=str(path.parent / result.pictures)) if result.pictures else result
