"""What can go wrong, said in one line, and the exit code that goes with it."""

import errno
import os
import signal
import sys

from medveil.errors import UserError
from medveil.launch.extras import missing_extra

USAGE_ERROR = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WorkerFailed(RuntimeError):
    """A process of the job ended with an error; the message holds its traceback."""


class Interrupted(Exception):
    """The run was asked to stop; its state is saved. ``number`` is the signal."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(number, where)
        self.number, self.where = number, where

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name} {self.where}"


class VerificationFailed(RuntimeError):
    """What was saved is not what was promised; there is no release."""


def explain(error: Exception) -> int | None:
    """Print the line that tells a person about ``error`` and return the exit code; None for a fault of the program."""
    if isinstance(error, Interrupted):
        say(f"{error}; run the same command again to go on")
        return 128 + error.number
    if isinstance(error, UserError):
        say(str(error))
        return USAGE_ERROR
    if (line := missing_extra(error)) is not None:
        say(line)
        return USAGE_ERROR
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" ({error.filename})" if error.filename else ""
        say(f"{os.strerror(error.errno)}{where}: free some space and run the same command again to go on")
        return USAGE_ERROR
    if isinstance(error, VerificationFailed):
        say(f"there is no release, because it failed its verification: {error}")
        return 1
    if isinstance(error, WorkerFailed):
        say(str(error))
        return 1
    return None


def say(line: str) -> None:
    """Print ``line`` for a person, once."""
    # Under torchrun or SLURM every rank comes here: the first speaks for all.
    if os.environ.get("RANK", "0") == "0":
        print(f"medveil: {line}", file=sys.stderr)
