"""``medveil restore``: the originals of a release again, for whoever has its key."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """The flags of ``medveil restore``."""
    add = parser.add_argument
    add("release", type=Path, metavar="RELEASE", help="the release as it was published")
    add("--key", type=Path, required=True, metavar="PATH", help="the key that was written with it")
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write; it must not exist")
    add("--only", action="append", default=[], metavar="ID", help="of these images alone: ids, or patterns such as a_*")
    add("--key-from", type=Path, metavar="PATH", help="32 bytes that open it (else MEDVEIL_PASSPHRASE, or asked for)")


def main(args: argparse.Namespace) -> int:
    """Run ``medveil restore``."""
    from medveil.launch.extras import require

    require("key")
    from medveil.launch.release.restore import restore
    from medveil.launch.release.secret import passphrase, secret_from_file

    secret = passphrase(args.key, twice=False) if args.key_from is None else secret_from_file(args.key_from)
    print(restore(args.release, args.key, secret, args.out, args.only, quiet=False), flush=True)
    return 0
