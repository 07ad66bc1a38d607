"""Files of a data set that cannot be used: all said in one go, or left out where that is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from medveil.errors import UserError

S = TypeVar("S")
R = TypeVar("R")

_NAMED = 20
"""So many of them are named."""


@dataclass
class BadFiles:
    """Those found in ``root``; with ``skip`` they are left out, else :meth:`check` refuses the set."""

    root: Path
    skip: bool = False
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, sample: str, error: UserError) -> None:
        """``sample`` cannot be used because of ``error``, which names the file."""
        self.found.append((sample, str(error)))

    def check(self) -> list[str]:
        """A note of what is left out, if anything. Raises UserError naming the files, where they are not to be."""
        if not self.found:
            return []
        if len(self.found) == 1 and not self.skip:
            raise UserError(self.found[0][1])
        # What each message says of mending is said once, for all.
        said = "; ".join(message.rpartition(": ")[0] or message for _, message in self.found[:_NAMED])
        more = len(self.found) - _NAMED
        said += f"; and {more} more" if more > 0 else ""
        count = f"{len(self.found)} file{'s' if len(self.found) > 1 else ''} of {self.root}"
        if self.skip:
            return [f"{count} left out (--skip-bad): {said}"]
        raise UserError(f"{count} cannot be used ({said}): mend them, or leave them out with --skip-bad")


def attempt(read: Callable[[S], R]) -> Callable[[S], R | UserError]:
    """``read``, that returns the UserError which it would raise."""

    def tried(sample: S) -> R | UserError:
        try:
            return read(sample)
        except UserError as error:
            return error

    return tried
