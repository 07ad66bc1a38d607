"""Run directories: named by what they compute, private, owned by one process at a time, and continued after any death.

Two copies of one run never corrupt it. On one host (and on file systems with locks) a lock file tells whether the owner
lives. Where the lock says nothing about the other copy, the newer one takes over: it writes its token into
``owner.json``, and the older one finds a foreign token before its next write and ends. Files that both may
write at the same time carry the token in their names, so a write between check and rename harms nobody.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from medveil.errors import UserError
from medveil.launch.reading import STORED, read_bytes, read_own
from medveil.launch.running.files import canonical, make_private, write_private
from medveil.launch.running.places import new_token
from medveil.launch.running.processes import Processes

T = TypeVar("T")
C = TypeVar("C")

FORMAT = 1
"""The version of the run directory, a part of its name: a newer format starts a new run."""

DONE = "done.json"
"""The note of a run that is complete."""

KEPT = 2
"""Checkpoints that stay: the newest, and one more in case it is unreadable."""

_CHECKPOINT = re.compile(r"step-(\d{9})\.([0-9a-f]+)\.pt")
_HELD = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class OwnershipLost(UserError):
    """Another copy of this run has taken it over; this one must not write any more."""


def host() -> str:
    """What this machine is called: by SLURM, of whose nodes several may be one machine, else by itself."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def run_name(config: Mapping[str, Any], fingerprint: str) -> str:
    """16 hex digits of the sha256 over configuration, data fingerprint and format version."""
    text = canonical({"config": config, "data": fingerprint, "format": FORMAT})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Run:
    """One owned run directory. Made by :func:`own`; only its owner (rank 0) writes."""

    def __init__(self, path: Path, token: str) -> None:
        self.path = path
        self.token = token
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._locked = False

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    def check_owner(self) -> None:
        """Raise :class:`OwnershipLost` if another copy has taken the run over. Called before every write that lasts."""
        if not self._locked:
            self._locked = try_lock(self._lock)
        owner = _read_owner(self.path)
        if owner is None or owner.token != self.token:
            taker = "somebody" if owner is None else f"process {owner.pid} on {owner.host}"
            raise OwnershipLost(f"{self.path}: {taker} has taken this run over: this one ends")

    def save_checkpoint(self, step: int, content: bytes) -> Path:
        """Keep ``content`` as the checkpoint of ``step``, and drop all but the newest :data:`KEPT`."""
        self.check_owner()
        path = self.checkpoints_path / f"step-{step:09d}.{self.token}.pt"
        write_private(path, content)
        for old in self.checkpoints()[KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, newest step first (of equal steps, one stands for all: they hold the same state)."""
        named = [
            (match, path) for path in self.checkpoints_path.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))
        ]
        return [path for _, path in sorted(named, key=lambda pair: (int(pair[0][1]), pair[0][2]), reverse=True)]

    def append_metrics(self, records: list[dict[str, float]]) -> None:
        """One line per record at the end of ``metrics.jsonl``."""
        self._append("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))

    def forget_metrics_after(self, step: int) -> None:
        """Drop records of steps that a restart will compute again."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            write_private(path, "".join(line + "\n" for line in _metric_lines(path, step)).encode())

    def log(self, line: str) -> None:
        self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write :data:`DONE`: the run is complete."""
        self.note(DONE, result)

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep ``values`` as the file ``name``."""
        self.check_owner()
        write_private(self.path / name, (json.dumps(values, indent=1) + "\n").encode())

    def read_note(self, name: str, cls: type[C]) -> C | None:
        """The values of :meth:`note` or :meth:`finish` as a ``cls``, or None. Raises UserError for a damaged file."""
        return read_own(cls, self.path / name)

    def siblings(self) -> Iterator[tuple[Path, bool]]:
        """The other runs in the same folder, and whether a process on this host is at work on each."""
        for lock in sorted(self.path.parent.glob("*/lock")):
            if lock.parent != self.path and lock.is_file():
                with lock.open("r+b") as file:
                    yield lock.parent, not try_lock(file.fileno())

    def _append(self, name: str, text: str) -> None:
        with os.fdopen(os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(text.encode())

    def _take(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not (locked := try_lock(self._lock)):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
        owner = _read_owner(self.path)
        if not locked and owner is not None and owner.host == host():
            raise UserError(
                f"{self.path}: process {owner.pid} on this machine is at work on this run: wait for it or stop it"
            )
        self._locked = locked
        mine = _Owner(self.token, host(), os.getpid())
        write_private(self.path / "owner.json", canonical(asdict(mine)).encode())

    def _release(self) -> None:
        os.close(self._lock)


def try_lock(file: int) -> bool:
    """Whether this process has the lock of the open ``file`` now, or the file system knows no locks; never waits."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _UNSUPPORTED:
            # The token alone tells copies apart where the file system has no locks.
            return True
        raise
    return True


@contextmanager
def own(root: Path, config: Mapping[str, Any], fingerprint: str, patience: float = 5.0) -> Iterator[Run]:
    """The run of ``config`` on data of ``fingerprint`` under ``root``, made or continued, owned within the context.

    Waits ``patience`` seconds for another owner on this host (which may be ending). Raises UserError if it stays.
    """
    path = root / run_name(config, fingerprint)
    make_private(root)
    make_private(path)
    make_private(path / "checkpoints")
    run = Run(path, new_token())
    try:
        run._take(patience)
        written = {"config": dict(config), "data": fingerprint, "format": FORMAT}
        found = run.read_note("config.json", dict[str, Any])
        if found is None:
            run.note("config.json", written)
        elif found != json.loads(canonical(written)):
            raise UserError(f"{path / 'config.json'} was changed: remove {path} to start this run anew")
        yield run
    finally:
        run._release()


@contextmanager
def owned(
    processes: Processes, root: Path, config: Mapping[str, Any], fingerprint: str, done: Callable[[Run], T]
) -> Iterator[tuple[Run | None, T]]:
    """Rank 0's run of ``config``, as :func:`own` makes it (None on the other ranks), and what ``done`` says of it, on
    every rank: a JSON value, such as what it reached when it was finished before.
    """
    with ExitStack() as stack:
        mine: list[Run] = []

        def begin() -> T:
            mine.append(stack.enter_context(own(root, config, fingerprint)))
            return done(mine[0])

        answer: T = processes.from_first(begin)
        yield (mine[0] if mine else None), answer


@dataclass(frozen=True)
class _Owner:
    """The process that writes to a run, by the token that it drew."""

    __pydantic_config__ = STORED

    token: str
    host: str
    pid: int


def _read_owner(path: Path) -> _Owner | None:
    return read_own(_Owner, path / "owner.json")


def _metric_lines(path: Path, last: int) -> Iterator[str]:
    """Whole lines of steps up to ``last``; a line that a kill cut short is dropped."""
    for line in read_bytes(path, 1 << 30).decode(errors="replace").splitlines():
        try:
            step = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(step, int) and step <= last:
            yield line
