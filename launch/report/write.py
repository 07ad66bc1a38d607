"""A whole report from records."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from medveil.errors import UserError
from medveil.launch.reading import open_regular
from medveil.launch.report.authorised import draw_authorised, seen_by_users
from medveil.launch.report.by_k import draw_by_k
from medveil.launch.report.classes import draw_classes
from medveil.launch.report.comparison import draw_comparisons
from medveil.launch.report.config import Layout
from medveil.launch.report.figures import STYLE, draw_bars_and_curves
from medveil.launch.report.frontier import draw_frontiers
from medveil.launch.report.heatmap import draw_heatmaps
from medveil.launch.report.mixed import draw_mixed
from medveil.launch.report.page import html_text
from medveil.launch.report.picture import Picture, forget
from medveil.launch.report.published import Published
from medveil.launch.report.sheets import draw_sheets, kept_samples
from medveil.launch.report.summary import Row, by_data, summarise
from medveil.launch.report.tables import csv_text, markdown_text, worst_csv_text
from medveil.launch.report.worst import worst_cases
from medveil.launch.results import CellResult
from medveil.launch.running.files import make_private, write_private
from medveil.launch.running.places import check_place

PAGE = "report.html"
_FILES = (PAGE, "results.csv", "worst.csv", "results.md")
_KNOWN_BY = b"Do not publish this report."
_HEAD_BYTES = 64 << 10

_DRAWS = (
    draw_bars_and_curves,
    draw_heatmaps,
    draw_frontiers,
    draw_by_k,
    draw_mixed,
    draw_classes,
    draw_sheets,
    draw_authorised,
    draw_comparisons,
)
"""Each draws what there is to draw of the rows of one data set."""


def write_report(
    results: Sequence[CellResult],
    out: Path,
    title: str,
    published: Published | None = None,
    note: str = "",
    layout: Layout | None = None,
) -> None:
    """Writes ``results.csv``, ``worst.csv``, ``results.md``, ``figures/*.png`` and ``report.html`` into ``out``.

    The folder is private to its owner.

    ``note``: a sentence for the top of both. ``layout``: of a table in ``results.md`` as a paper has it. Files of an
    earlier report there are replaced. Raises :class:`UserError` when ``out`` cannot be written.
    """
    rows = summarise(results, published)
    check_place(out)
    _check_ours(out)
    _check_pictures(rows)
    make_private(out)
    try:
        pictures = _draw(rows, out / "figures")
        texts = {
            "results.csv": csv_text(results),
            "worst.csv": worst_csv_text(worst_cases(rows)),
            "results.md": markdown_text(results, rows, title, note, layout),
            PAGE: html_text(results, rows, pictures, title, note),
        }
        for name, text in texts.items():
            write_private(out / name, text.encode())
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror}; name another folder") from error


def _draw(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """Every figure that there is, into ``folder``, in place of those of an earlier report."""
    forget(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sets = by_data(rows).values()
    with mpl.rc_context(STYLE):
        return [picture for draw in _DRAWS for of_data in sets for picture in draw(of_data, folder)]


def _check_pictures(rows: Sequence[Row]) -> None:
    """Raise UserError for a file that is none of a run, while an earlier report still stands."""
    for of_data in by_data(rows).values():
        kept_samples(of_data)
        seen_by_users(of_data)


def _check_ours(out: Path) -> None:
    """Raise UserError when a file of ``out`` would be replaced that is not of an earlier report."""
    there = [path for path in (out / name for name in _FILES) if os.path.lexists(path)]
    if not there:
        return
    try:
        with open_regular(out / PAGE) as page:
            ours = _KNOWN_BY in page.read(_HEAD_BYTES)
    except FileNotFoundError:
        ours = False
    if not ours:
        raise UserError(f"{there[0]} is not of an earlier report, and would be replaced: choose another --out")
