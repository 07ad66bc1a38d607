"""What a sweep has submitted to SLURM: a numbered folder for each submission, with its jobs' ids, pickles and logs."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.reading import read_own
from medveil.launch.running.files import write_private
from medveil.launch.running.runs import try_lock

_NOTE = "submitted.json"


@dataclass(frozen=True)
class Submissions:
    """``path`` holds the numbered folders."""

    path: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process submits jobs of this sweep within the context. Raises UserError where one does already."""
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not try_lock(lock):
                raise UserError(f"{self.path.parent}: another command is submitting this sweep's jobs: wait for it")
            yield
        finally:
            os.close(lock)

    def ids(self) -> dict[str, str]:
        """SLURM's id of each job's newest submission, by the job's key."""
        ids: dict[str, str] = {}
        for folder in self._folders():
            ids |= _submitted(folder)
        return ids

    def next_folder(self) -> Path:
        """A new folder for a submission: job ids may begin again at 1 when a cluster is set up anew."""
        return self.path / f"{max((int(path.name) for path in self._folders()), default=0) + 1:03d}"

    def folder_of(self, key: str) -> Path | None:
        """The folder of the newest submission of the job ``key``."""
        return next((one for one in reversed(self._folders()) if key in _submitted(one)), None)

    def submitted_at(self, key: str) -> float | None:
        """When the job ``key`` was last submitted, in seconds since the epoch."""
        folder = self.folder_of(key)
        return None if folder is None else (folder / _NOTE).stat().st_mtime

    def _folders(self) -> list[Path]:
        numbered = [path for path in self.path.glob("[0-9]*") if path.name.isdecimal()]
        return sorted(numbered, key=lambda path: int(path.name))


def _submitted(folder: Path) -> dict[str, str]:
    return read_own(dict[str, str], folder / _NOTE) or {}


def note_submitted(folder: Path, ids: Mapping[str, str]) -> None:
    """Keep in the folder of a submission what has been submitted up to now."""
    write_private(folder / _NOTE, json.dumps(dict(ids)).encode())
