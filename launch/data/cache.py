"""Large sets unpacked once: npy files in a private folder, found again by the file that they come from."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data.store import Mapped, open_mapped
from medveil.launch.reading import STORED, read_own
from medveil.launch.running.files import write_private

VERSION = 1
"""Counts up when what is unpacked changes."""


@dataclass(frozen=True)
class Kept:
    """What is known of the unpacked ``file``: the ``fingerprint`` of its data."""

    __pydantic_config__ = STORED

    fingerprint: str
    file: str


@dataclass(frozen=True)
class Entry:
    """What is kept of one file. ``folder`` and ``key`` name it."""

    folder: Path
    key: str

    def path(self, part: str) -> Path:
        """Where the pixels of ``part`` are unpacked to; they count once :meth:`keep` is done."""
        return self.folder / f"{self.key}-{part}.npy"

    def read(self) -> Kept | None:
        """What :meth:`keep` was told; None where it was not called, or what it wrote is damaged."""
        try:
            return read_own(Kept, self._note)
        except UserError:
            return None

    def open(self, part: str, count: int, size: tuple[int, int]) -> Mapped | None:
        """The ``count`` images of ``size`` (height, width) of ``part``; None where the file holds anything else."""
        try:
            found = open_mapped(self.path(part))
        except (UserError, OSError, ValueError, TypeError, SyntaxError):
            return None
        shape = found.array.shape
        return found if len(shape) == 4 and (shape[0], *shape[2:]) == (count, *size) and shape[1] in (1, 3) else None

    def keep(self, kept: Kept) -> None:
        """From here on the unpacked files are complete."""
        write_private(self._note, json.dumps(asdict(kept)).encode())

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.key}.json"


@contextmanager
def entry(folder: Path, file: Path, what: str) -> Iterator[Entry]:
    """The entry in ``folder`` of ``what`` of ``file`` as it is now, held by this process alone."""
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another folder with --cache") from None
    stat = file.stat()
    text = f"{VERSION}\x1f{file.resolve()}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\x1f{what}"
    one = Entry(folder, hashlib.sha256(text.encode()).hexdigest()[:16])
    lock = os.open(folder / f"{one.key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Where there are no locks two copies may unpack to one name; each replaces the other's file by its own.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield one
    finally:
        os.close(lock)
