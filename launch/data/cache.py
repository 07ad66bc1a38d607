"""Large sets unpacked once: npy files in a private folder, found again by the file that they come from."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medveil.errors import UserError
from medveil.launch.data.store import Mapped, open_mapped

VERSION = 1
"""Counts up when what is unpacked changes."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one file. ``folder`` and ``key`` name it."""

    folder: Path
    key: str

    def path(self, part: str) -> Path:
        """Where the pixels of ``part`` are unpacked to; they count once :meth:`keep` is done."""
        return self.folder / f"{self.key}-{part}.npy"

    def read(self) -> dict[str, Any] | None:
        """What :meth:`keep` was told, or None."""
        try:
            kept: dict[str, Any] = json.loads((self.folder / f"{self.key}.json").read_text())
        except FileNotFoundError:
            return None
        return kept

    def open(self, part: str) -> Mapped:
        return open_mapped(self.path(part))

    def keep(self, values: dict[str, Any]) -> None:
        """From here on the unpacked files are complete. ``values``: what else is to be known of them."""
        partial = self.folder / f".{self.key}.json"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(values))
        partial.replace(self.folder / f"{self.key}.json")


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
