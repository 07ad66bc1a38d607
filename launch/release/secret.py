"""What opens a key: a passphrase, or 32 bytes in a private file."""

import getpass
import os
import stat
import sys
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from medveil.errors import UserError

ENVIRONMENT = "MEDVEIL_PASSPHRASE"
SHORTEST = 8
"""Characters that a passphrase must have."""

_RAW_BYTES = 32


@dataclass(frozen=True)
class Secret:
    """``value`` is never shown."""

    value: bytes = field(repr=False)
    is_passphrase: bool


def secret_from_file(path: Path) -> Secret:
    """The 32 bytes of ``path``. Raises :class:`UserError` if it has more or fewer, or if others may read it."""
    try:
        status = path.stat()
        value = path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size == _RAW_BYTES else b""
    except OSError as error:
        raise UserError(f"--key-from {path} cannot be read ({error.strerror})") from None
    if len(value) != _RAW_BYTES:
        raise UserError(f"--key-from {path} must hold 32 random bytes: head -c 32 /dev/urandom > {path}")
    if status.st_mode & 0o077:
        raise UserError(f"--key-from {path} can be read by others: chmod 600 {path}")
    return Secret(value, is_passphrase=False)


def passphrase(key: Path, *, twice: bool) -> Secret:
    """The passphrase of ``key``: of the environment, else asked for on the terminal (``twice`` for a new one).

    Raises :class:`UserError` where there is neither, for one that is too short, and when the two differ.
    """
    typed = os.environ.get(ENVIRONMENT)
    if typed is None:
        if not sys.stdin.isatty():
            raise UserError(f"no passphrase for {key}: set {ENVIRONMENT}, or give --key-from FILE of 32 bytes")
        typed = getpass.getpass(f"passphrase of {key}: ")
        if twice and getpass.getpass("the same again: ") != typed:
            raise UserError("the two passphrases differ: run the same command again")
    if len(typed) < SHORTEST:
        raise UserError(f"the passphrase of {key} is too short: at least {SHORTEST} characters")
    # One passphrase, however a keyboard composes its accents.
    return Secret(unicodedata.normalize("NFC", typed).encode(errors="surrogateescape"), is_passphrase=True)
