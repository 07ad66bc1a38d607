"""Finds the records of finished and failed cells under a directory."""

import json
from dataclasses import replace
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.results import CellResult

RECORD = "result.json"


def cell_key(result: CellResult) -> tuple[str, str, str, str, str, int]:
    """What makes a cell the same cell in two records."""
    return (result.data, result.protector, result.options, result.exploiter, result.defence, result.seed)


def collect(folder: Path) -> list[CellResult]:
    """The records (files named ``result.json``) anywhere under ``folder``, one a cell.

    Where several records are of the same cell, a finished one is taken before a failed one, and a later path before an
    earlier. ``pictures`` come back as paths that open from here. Raises :class:`UserError` when there is no such
    folder, no record in it, or a record that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the one that holds the runs, for example runs/demo")
    found: dict[tuple[str, str, str, str, str, int], CellResult] = {}
    for path in sorted(folder.rglob(RECORD)):
        result = _load(path)
        known = found.get(cell_key(result))
        if known is None or result.status == "done" or known.status != "done":
            found[cell_key(result)] = result
    if not found:
        raise UserError(f"{folder} holds no {RECORD}; name a folder of runs made by 'medveil audit' or 'medveil sweep'")
    return [found[key] for key in sorted(found)]


def _load(path: Path) -> CellResult:
    try:
        result = CellResult.load(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a record of a run ({error}); remove it or run its cell again") from error
    return replace(result, pictures=str(path.parent / result.pictures)) if result.pictures else result
