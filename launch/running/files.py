"""Files and folders that are private, complete or not there at all, and survive a power failure."""

import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medveil.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
from medveil.launch.reading import read_own

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_beside(release: Path) -> Path:
    """Where the private run of a release lies unless another place was named: ``.RELEASE.run``."""
    place = release.absolute()
    return place.with_name(f".{place.name}.run")


def make_private(path: Path) -> None:
    """The folder ``path`` with mode 0700. Raises UserError when it cannot be made there."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise UserError(f"{path}: cannot make this folder ({error.strerror}): choose another place") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise UserError(f"{path}: the file system is read-only: choose another place") from error
        raise


def open_to_others(path: Path) -> None:
    """A release is for others: the folder ``path`` gets the mode that the user's umask gives."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o777 & ~mask)


def write_private(path: Path, content: bytes) -> None:
    """``content`` under the name ``path``, mode 0600: complete and on the disk, or not there at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_arrays(path: Path, arrays: "Mapping[str, NDArray[Any]]") -> None:
    """``arrays`` as the npz ``path``, in the manner of :func:`write_private`."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_private(path, buffer.getvalue())


def sync_folder(path: Path) -> None:
    """Make renames in ``path`` survive a power failure."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def drawn_once(path: Path, cls: type[D], draw: Callable[[], D]) -> D:
    """The dataclass kept in the private file ``path``, drawn by whichever process comes first.

    Raises UserError when the file is damaged.
    """
    kept = read_own(cls, path)
    if kept is not None:
        return kept
    mine, drawn = path.with_name(f".{path.name}.{secrets.token_hex(4)}"), draw()
    write_private(mine, canonical(asdict(drawn)).encode())
    try:
        os.link(mine, path)
    except FileExistsError:
        return read_own(cls, path) or drawn
    finally:
        mine.unlink()
    return drawn


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_place(out: Path) -> None:
    """Raise UserError now, not after hours, when ``out`` could not be written."""
    folder = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UserError(f"{out} cannot be written: {folder} is not a folder")
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
