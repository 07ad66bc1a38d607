"""``medveil report``: its flags, and the report on finished runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, _: Sequence[str] = ()) -> None:
    """The options of ``medveil report``."""
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR", help="a folder that holds runs, for example runs/demo")
    parser.add_argument("--out", type=Path, help="where to write the report (default: RUNS_DIR/report)")
    parser.add_argument("--title", help="the report's title (default: the folder's name)")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="CSV",
        help="published values to show beside ours: data, protector, exploiter, attack, metric, value (percent)",
    )


def main(args: argparse.Namespace) -> int:
    """``medveil report``: reads the records under RUNS_DIR, writes the report, says where it is."""
    from medveil.launch.errors import printable, tell
    from medveil.launch.release.manifest import check_outside_releases
    from medveil.launch.report.published import read_published
    from medveil.launch.report.records import read_records
    from medveil.launch.report.write import write_report

    runs: Path = args.runs
    out: Path = args.out or runs / "report"
    check_outside_releases(out, itself=True)
    results = read_records(runs)
    published = read_published(args.published) if args.published else None
    write_report(results, out, printable(args.title or runs.resolve().name), published)
    failed = sum(r.status != "done" for r in results)
    tell(f"{len(results)} cells, {failed} without a result: {out / 'report.html'}")
    return 0
