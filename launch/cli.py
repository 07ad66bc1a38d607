"""The ``medveil`` command: finds the sub-command, and turns what goes wrong into one line and an exit code."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from medveil.launch.errors import USAGE_ERROR, explain, say

COMMANDS = {
    "protect": ("medveil.launch.commands.protect", "protect a data set and write a release"),
    "merge": ("medveil.launch.commands.merge", "put the releases of several contributors together"),
    "audit": ("medveil.launch.commands.audit", "train on a release and measure what it taught"),
    "report": ("medveil.launch.commands.report", "tables, figures and a page from finished runs"),
    "sweep": ("medveil.launch.commands.sweep", "a grid of protectors and audits, here or on a cluster"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit code: 0 done, 2 for what the user can mend, 128 + signal when stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        prog="medveil", usage="medveil COMMAND ...", description="Make medical images useless for training."
    )
    parser.epilog = "commands:\n" + "".join(f"  {name:<9}{text}\n" for name, (_, text) in COMMANDS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND")
    command = parser.parse_args(arguments[:1] or ["--help"]).command
    try:
        # Imported only now: each sub-command starts without the others' weight.
        return _run(command, arguments[1:])
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


def _run(command: str, arguments: list[str]) -> int:
    parser = _Parser(prog=f"medveil {command}", description=COMMANDS[command][1].capitalize() + ".", allow_abbrev=False)
    module = importlib.import_module(COMMANDS[command][0])
    module.add_arguments(parser)
    if command == "protect":
        module.add_method_arguments(parser, arguments)
    code: int = module.main(parser.parse_args(arguments))
    return code


if __name__ == "__main__":
    sys.exit(main())
