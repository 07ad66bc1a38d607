"""Files and folders that are private, complete or not there at all, and survive a power failure."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medveil.errors import UserError
from medveil.launch.errors import FULL
from medveil.launch.reading import read_own
from medveil.launch.running.places import draft_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

D = TypeVar("D", bound="DataclassInstance")


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def make_private(path: Path) -> None:
    """The folder ``path`` with mode 0700. Raises UserError when it cannot be made there."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{path}: cannot make this folder ({error.strerror}): choose another place") from error


def open_to_others(path: Path) -> None:
    """A release is for others: the folder ``path`` gets the mode that the user's umask gives."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o777 & ~mask)


def write_private(path: Path, content: bytes) -> None:
    """``content`` under the name ``path``, mode 0600: complete and on the disk, or not there at all."""
    partial = draft_of(path)
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


def sync_tree(path: Path) -> None:
    """Bring all files and folders in ``path`` onto the disk, before it gets its final name."""
    for one in [*path.rglob("*"), path]:
        sync_folder(one)


def drawn_once(path: Path, cls: type[D], draw: Callable[[], D]) -> D:
    """The dataclass kept in the private file ``path``, drawn by whichever process comes first.

    Raises UserError when the file is damaged.
    """
    found = read_own(cls, path)
    if found is not None:
        return found
    mine, drawn = draft_of(path), draw()
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
