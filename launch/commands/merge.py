"""``medveil merge``: its flags."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, _: Sequence[str] = ()) -> None:
    """The flags of ``medveil merge``."""
    parser.add_argument(
        "releases", type=Path, nargs="+", metavar="RELEASE", help="releases of one data set, or of different classes"
    )
    parser.add_argument(
        "--run",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="private run of a release, once for each in their order (default: .RELEASE.run)",
    )
    parser.add_argument("--out", required=True, type=Path, help="the release folder to write; it must not exist")


def main(args: argparse.Namespace) -> int:
    """Run ``medveil merge``."""
    from medveil.launch.release.merge import merge
    from medveil.launch.running.places import run_beside

    totals = merge(args.releases, args.out, args.run)
    print(f"{totals.protected} of {totals.samples} released images are protected\nrelease: {args.out}")
    print(f"private run, not to be published: {run_beside(args.out)}", flush=True)
    return 0
