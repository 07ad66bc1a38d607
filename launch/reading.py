"""What comes from a file is not trusted: only regular files of bounded size are read, and only as the type expected."""

import errno
import os
import stat
from dataclasses import is_dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medveil.errors import UserError

C = TypeVar("C")

NOTE_BYTES = 16 << 20
"""The most that a note or a record may have: far beyond what is written, little enough to be parsed at once."""

STORED = ConfigDict(allow_inf_nan=False, strict=True)
"""For ``__pydantic_config__`` of dataclasses that are read with :func:`read_as`. Unknown keys are passed over: a newer
version may have written them.
"""

_SAID = 160

_adapters: dict[Any, TypeAdapter[Any]] = {}
"""Of types that were read before: to make one takes longer than to read most files."""


def open_regular(path: Path) -> IO[bytes]:
    """The regular file ``path``, to read; a pipe, a device or a folder is refused before a byte is read.

    Raises FileNotFoundError where there is none, and UserError for what cannot be opened or is no regular file.
    """
    try:
        # A pipe without a writer would otherwise wait for one.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except IsADirectoryError:
        raise UserError(f"{path} is not a regular file: remove it or name another") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): check the file and its permissions") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UserError(f"{path} is not a regular file: remove it or name another")
    return file


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of the regular file ``path``.

    Raises UserError as :func:`open_regular` does, and when there are more than ``limit`` bytes.
    """
    with open_regular(path) as file:
        try:
            # A read of so many bytes takes the memory for them, however short the file.
            content = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check the disk that it is on") from None
    if len(content) > limit:
        raise UserError(f"{path} has more than {limit >> 20} MiB: such huge files are not read")
    return content


def read_as(cls: type[C], path: Path, what: str, mend: str, limit: int = NOTE_BYTES) -> C:
    """The JSON in ``path`` as a ``cls``: a dataclass with :data:`STORED`, or a type such as ``dict[str, str]``.

    ``what`` (the file should be) and ``mend`` are for the message: "PATH is not WHAT (reason): MEND". Raises UserError,
    also for JSON that is nested 200 levels deep, and FileNotFoundError where there is no file.
    """
    content = read_bytes(path, limit)
    try:
        read: C = _adapter(cls).validate_json(content)
        return read
    except ValidationError as error:
        raise UserError(f"{path} is not {what} ({_first(error)}): {mend}") from None


def _adapter(cls: Any) -> TypeAdapter[Any]:
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls) if is_dataclass(cls) else TypeAdapter(cls, config=STORED)
    return _adapters[cls]


def read_own(cls: type[C], path: Path) -> C | None:
    """What a run of this program kept as the file ``path``; None where there is none. Raises UserError as above."""
    try:
        return read_as(cls, path, "a note of a run", "remove it and run the same command again")
    except FileNotFoundError:
        return None


def _first(error: ValidationError) -> str:
    """Where the first thing is wrong and why, in one short line."""
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, found["loc"]))
    reason = found["msg"].removeprefix("Value error, ")
    said = f"{where}: {reason}" if where else reason
    return said if len(said) <= _SAID else f"{said[:_SAID]}..."
