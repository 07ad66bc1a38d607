"""A whole report from records."""

from collections.abc import Sequence
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.report.authorised import draw_authorised
from medveil.launch.report.by_k import draw_by_k
from medveil.launch.report.comparison import draw_comparisons
from medveil.launch.report.figures import draw_all
from medveil.launch.report.heatmap import draw_heatmaps
from medveil.launch.report.mixed import draw_mixed
from medveil.launch.report.page import html_text
from medveil.launch.report.published import Published
from medveil.launch.report.summary import summarise
from medveil.launch.report.tables import csv_text, markdown_text
from medveil.launch.report.worst import csv_text as worst_text
from medveil.launch.report.worst import worst_cases
from medveil.launch.results import CellResult

__all__ = ["write_report"]


def write_report(
    results: Sequence[CellResult], out: Path, title: str, published: Published | None = None, note: str = ""
) -> None:
    """Writes ``results.csv``, ``worst.csv``, ``results.md``, ``figures/*.png`` and ``report.html`` into ``out``.

    The folder is private to its owner.

    ``note``: a sentence for the top of both. Files of an earlier report there are replaced. Raises :class:`UserError`
    when ``out`` cannot be written.
    """
    rows = summarise(results, published)
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        figures = out / "figures"
        for stale in figures.glob("*.png"):
            stale.unlink()
        draws = (draw_all, draw_heatmaps, draw_by_k, draw_mixed, draw_authorised, draw_comparisons)
        pictures = [picture for draw in draws for picture in draw(rows, figures)]
        _replace(out / "results.csv", csv_text(results))
        _replace(out / "worst.csv", worst_text(worst_cases(rows)))
        _replace(out / "results.md", markdown_text(results, rows, title, note))
        _replace(out / "report.html", html_text(results, rows, pictures, title, note))
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror}; name another folder") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
