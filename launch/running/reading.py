"""What comes from a file is not trusted: only regular files of bounded size are read, and only as the type expected."""

import errno
import os
import stat
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

_OBJECT = TypeAdapter(dict[str, Any], config=STORED)
_SAID = 160


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
            content = file.read(limit + 1)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check the disk that it is on") from None
    if len(content) > limit:
        raise UserError(f"{path} has more than {limit >> 20} MiB: such huge files are not read")
    return content


def read_json(path: Path, what: str, mend: str, limit: int = NOTE_BYTES) -> dict[str, Any]:
    """The JSON object in ``path``: numbers finite, at most 200 levels deep.

    ``what`` (the file should be) and ``mend`` are for the message: "PATH is not WHAT (reason): MEND". Raises UserError,
    and FileNotFoundError where there is no file.
    """
    return _parsed(_OBJECT, read_bytes(path, limit), path, what, mend)


def read_as(cls: type[C], path: Path, what: str, mend: str, limit: int = NOTE_BYTES) -> C:
    """The JSON object in ``path`` as the dataclass ``cls``, as :func:`read_json` else."""
    return _parsed(TypeAdapter(cls), read_bytes(path, limit), path, what, mend)


def _parsed(adapter: TypeAdapter[C], content: bytes, path: Path, what: str, mend: str) -> C:
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} is not {what} ({_first(error)}): {mend}") from None


def _first(error: ValidationError) -> str:
    """Where the first thing is wrong and why, in one short line."""
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, found["loc"]))
    reason = found["msg"].removeprefix("Value error, ")
    said = f"{where}: {reason}" if where else reason
    return said if len(said) <= _SAID else f"{said[:_SAID]}..."
