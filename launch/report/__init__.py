"""Tables, figures and one self-contained page from the records of runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch.report.authorised import draw_authorised
from launch.report.by_k import draw_by_k
from launch.report.collect import collect
from launch.report.comparison import draw_comparisons
from launch.report.figures import draw_all
from launch.report.mixed import draw_mixed
from launch.report.page import html_text
from launch.report.published import Published, read_published
from launch.report.summary import summarise
from launch.report.tables import csv_text, markdown_text
from launch.results import CellResult
from medveil.errors import UserError

__all__ = ["add_arguments", "main", "write_report"]


def write_report(
    results: Sequence[CellResult], out: Path, title: str, published: Published | None = None, note: str = ""
) -> None:
    """Writes ``results.csv``, ``results.md``, ``figures/*.png`` and ``report.html`` into ``out``, private to its owner.

    ``note``: a sentence for the top of both. Files of an earlier report there are replaced. Raises :class:`UserError`
    when ``out`` cannot be written.
    """
    rows = summarise(results, published)
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        figures = out / "figures"
        for stale in figures.glob("*.png"):
            stale.unlink()
        draws = (draw_all, draw_by_k, draw_mixed, draw_authorised, draw_comparisons)
        pictures = [picture for draw in draws for picture in draw(rows, figures)]
        _replace(out / "results.csv", csv_text(results))
        _replace(out / "results.md", markdown_text(results, rows, title, note))
        _replace(out / "report.html", html_text(results, rows, pictures, title, note))
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror}; name another folder") from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``medveil report``."""
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR", help="a folder that holds runs, for example runs/demo")
    parser.add_argument("--out", type=Path, help="where to write the report (default: RUNS_DIR/report)")
    parser.add_argument("--title", help="the report's title (default: the folder's name)")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="CSV",
        help="published values to show beside ours: data, protector, exploiter, defence, metric, value (percent)",
    )


def main(args: argparse.Namespace) -> int:
    """``medveil report``: reads the records under RUNS_DIR, writes the report, says where it is."""
    runs: Path = args.runs
    out: Path = args.out or runs / "report"
    results = collect(runs)
    published = read_published(args.published) if args.published else None
    write_report(results, out, args.title or runs.resolve().name, published)
    failed = sum(r.status != "done" for r in results)
    print(f"{len(results)} cells, {failed} without a result: {out / 'report.html'}")
    return 0
