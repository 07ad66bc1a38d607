"""``medveil merge``: its flags."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from medveil.launch.release.merge import merge


def add_arguments(parser: argparse.ArgumentParser, _: Sequence[str] = ()) -> None:
    """The flags of ``medveil merge``."""
    parser.add_argument(
        "releases", type=Path, nargs="+", metavar="RELEASE", help="releases of one data set, or of different classes"
    )
    parser.add_argument("--out", required=True, type=Path, help="the release folder to write; it must not exist")


def main(args: argparse.Namespace) -> int:
    """Run ``medveil merge``."""
    totals = merge(args.releases, args.out).totals
    print(f"{totals.protected} of {totals.samples} released images are protected\nrelease: {args.out}", flush=True)
    return 0
