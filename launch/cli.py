"""The ``medveil`` command: finds the sub-command, and turns what goes wrong into one line and an exit code."""

import argparse
import importlib
import io
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import NoReturn

from medveil import __version__
from medveil.errors import UserError
from medveil.launch.errors import explain, say

COMMANDS = {
    "check": ("medveil.launch.commands.check", "look a data set through before it is protected"),
    "protect": ("medveil.launch.commands.protect", "protect a data set and write a release"),
    "restore": ("medveil.launch.commands.restore", "the originals of a release again, with its key"),
    "merge": ("medveil.launch.commands.merge", "put the releases of several contributors together"),
    "audit": ("medveil.launch.commands.audit", "train on a release and measure what it taught"),
    "report": ("medveil.launch.commands.report", "tables, figures and a page from finished runs"),
    "sweep": ("medveil.launch.commands.sweep", "a grid of protectors and audits, here or on a cluster"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit code: 0 done, 2 for what the user can mend, 128 + signal when stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or a sign that the terminal's alphabet lacks ends no work of hours.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except BrokenPipeError:
        os._exit(1)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last checkpoint, if one was written")
        return 130
    except Exception as error:
        code = explain(error)
        if code is None:
            raise
        return code


def _run(arguments: list[str]) -> int:
    module, args = parse(arguments)
    code: int = module.main(args)
    return code


def parse(arguments: list[str]) -> tuple[ModuleType, argparse.Namespace]:
    """The module of the sub-command that ``arguments`` name, and what they tell it. Raises UserError for wrong ones."""
    parser = _Parser(
        prog="medveil", usage="medveil COMMAND ...", description="Make medical images useless for training."
    )
    parser.epilog = "commands:\n" + "".join(f"  {name:<9}{text}\n" for name, (_, text) in COMMANDS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=_versions())
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND")
    command = parser.parse_args(arguments[:1] or ["--help"]).command
    place, text = COMMANDS[command]
    parser = _Parser(
        prog=f"medveil {command}",
        description=f"{text[0].upper()}{text[1:]}.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    # Each sub-command starts without the others' weight, and shows its help without torch.
    module = importlib.import_module(place)
    module.add_arguments(parser, arguments[1:])
    return module, parser.parse_args(arguments[1:])


def _versions() -> str:
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "absent"
    return f"medveil {__version__}, Python {platform.python_version()}, torch {torch}"


if __name__ == "__main__":
    sys.exit(main())
