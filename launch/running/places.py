"""Where things may be written: every folder that a person names is checked here, every name beside it is made here."""

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from medveil.errors import UserError

_LONGEST = 200
"""Bytes of a name beside which longer ones are made: a file system takes 255."""

_TOKEN = re.compile(r"[0-9a-f]{8,16}")


def check_place(out: Path, flag: str = "--out") -> None:
    """Raise UserError now, not after hours, when ``out``, which ``flag`` named, could not be written."""
    if not str(out).isprintable():
        raise UserError(f"{flag} {str(out)!a} is not plain text: choose another name")
    if out.name in ("", ".."):
        raise UserError(f"{flag} {out} names no folder of its own: give it a name, such as release")
    if len(os.fsencode(out.name)) > _LONGEST:
        raise UserError(f"{flag} {out.name[:40]}... has a name of more than {_LONGEST} bytes: choose a shorter one")
    folder = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UserError(f"{out} cannot be written: {folder} is not a folder")
    if any(len(os.fsencode(part)) > 255 for part in out.parts):
        raise UserError(f"{out} cannot be written: a file system takes names of at most 255 bytes")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{out} cannot be written: no permission to write in {folder}")


def check_apart(out: Path, *data: str | Path | None) -> None:
    """Raise UserError when ``out`` would be written into a folder of ``data``, or holds one."""
    place = out.expanduser().resolve()
    for named in data:
        source = None if named is None else Path(named).expanduser().resolve()
        if source is None or not source.exists() or (source.is_file() and source != place):
            continue
        if place == source or source in place.parents:
            raise UserError(f"--out {out} lies in {named}, which it is made from: choose a place beside it")
        if place in source.parents:
            raise UserError(f"--out {out} holds {named}, which it is made from: choose a place beside it")


def run_beside(release: Path) -> Path:
    """Where the private run of a release lies unless another place was named: ``.RELEASE.run``."""
    place = release.absolute()
    return place.with_name(f".{place.name}.run")


def draft_of(path: Path) -> Path:
    """A hidden name beside ``path``, for what gets that name once it is complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def new_token() -> str:
    """16 random hex digits, by which one copy of a run knows what it wrote."""
    return secrets.token_hex(8)


def partial_of(out: Path, token: str) -> Path:
    """Where ``out`` is written, by the copy with ``token``, before it gets its name."""
    return out.with_name(f"{out.name}.partial-{token}")


def work_of(run: Path, token: str) -> Path:
    """Where the copy with ``token`` of the run directory ``run`` keeps what waits to be put into a release."""
    return run / f"release-{token}"


def abandoned(run: Path) -> Iterator[str]:
    """The tokens of copies of ``run`` that left such a folder."""
    for path in sorted(run.glob("release-*")):
        token = path.name.removeprefix("release-")
        if _TOKEN.fullmatch(token) and path.is_dir() and not path.is_symlink():
            yield token
