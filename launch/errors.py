"""What can go wrong, said in one line, and the exit code that goes with it."""

import errno
import os
import signal
import sys

from medveil.errors import UserError
from medveil.launch.extras import missing_extra
from medveil.launch.ranks import rank

USAGE_ERROR = 2
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE)
"""What only the place of a file can cause, never the program."""


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
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" ({error.filename})" if error.filename else ""
        say(f"{os.strerror(error.errno)}{where}: free some space and run the same command again to go on")
        return USAGE_ERROR
    if isinstance(error, OSError) and error.errno in _PLACES and error.filename:
        say(f"{error.filename}: {os.strerror(error.errno)}: check its permissions or choose another place")
        return USAGE_ERROR
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        # pathlib's word for ELOOP before Python 3.13
        say(f"{error}: name the folder itself")
        return USAGE_ERROR
    if _lacks_memory(error):
        say("there is not enough memory: give smaller images, a smaller width, depth or batch, or another machine")
        return USAGE_ERROR
    if isinstance(error, VerificationFailed):
        say(f"there is no release, because it failed its verification: {error}")
        return 1
    if isinstance(error, WorkerFailed):
        line, _, trace = str(error).partition("\n")
        say(line)
        if trace:
            print(printable(trace), file=sys.stderr)
        return 1
    return None


def say(line: str) -> None:
    """Print ``line`` for a person, once, as one line."""
    # Every rank comes here.
    if rank() == 0:
        print(f"medveil: {printable(' '.join(line.splitlines()))}", file=sys.stderr)


def tell(text: str) -> None:
    """Print ``text`` for a person; names in it may be a stranger's."""
    print(printable(text), flush=True)


def printable(text: str) -> str:
    """``text`` for a terminal, whoever wrote it: what could command the terminal is shown as an escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _lacks_memory(error: Exception) -> bool:
    # torch has a class of its own for GPUs only.
    words = ("can't allocate memory", "CUDA out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))
