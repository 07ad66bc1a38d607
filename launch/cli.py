"""The ``medveil`` command: finds the sub-command, and turns what goes wrong into one line and an exit code."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

COMMANDS = {
    "protect": ("launch.protect_command", "protect a data set and write a release"),
    "merge": ("launch.merge", "put the releases of several contributors together"),
    "audit": ("launch.audit", "train on a release and measure what it taught"),
    "report": ("launch.report", "tables, figures and a page from finished runs"),
    "sweep": ("launch.sweep_command", "a grid of protectors and audits, here or on a cluster"),
}

USAGE_ERROR = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        _refuse_other_kernels()
        # Imported only now: each sub-command starts without the others' weight.
        return _run(command, arguments[1:])
    except BrokenPipeError:
        os._exit(1)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from the last checkpoint, if one was written")
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


def explain(error: Exception) -> int | None:
    """Print the line that tells a person about ``error`` and return the exit code; None for a fault of the program."""
    from launch.processes import Interrupted, WorkerFailed
    from launch.verification import VerificationFailed
    from medveil.errors import UserError

    if isinstance(error, Interrupted):
        _say(f"{error}; run the same command again to go on")
        return 128 + error.number
    if isinstance(error, UserError):
        _say(str(error))
        return USAGE_ERROR
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" ({error.filename})" if error.filename else ""
        _say(f"{os.strerror(error.errno)}{where}: free some space and run the same command again to go on")
        return USAGE_ERROR
    if isinstance(error, VerificationFailed):
        _say(f"there is no release, because it failed its verification: {error}")
        return 1
    if isinstance(error, WorkerFailed):
        _say(str(error))
        return 1
    return None


def _say(line: str) -> None:
    # Under torchrun or SLURM every rank comes here: the first speaks for all.
    if os.environ.get("RANK", "0") == "0":
        print(f"medveil: {line}", file=sys.stderr)


def _refuse_other_kernels() -> None:
    """Another distribution also has the import name ``kernels``: installed together, one would hide the other."""
    from medveil.errors import UserError

    names = {name.lower() for name in metadata.packages_distributions().get("kernels", [])}
    if {"medveil", "kernels"} <= names:
        raise UserError(
            "the package 'kernels' (Hugging Face) hides medveil's own: pip uninstall kernels, or use two environments"
        )


if __name__ == "__main__":
    sys.exit(main())
