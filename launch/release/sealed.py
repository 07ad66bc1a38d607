"""An encrypted file of byte strings: streamed in, found again by an index, and opened whole or not at all.

    header    16 bytes of name and version, then how the secret becomes the file's own key, and a check of that key
    blocks    each: length (4 bytes), AES-256-GCM of one compressed block of the stream
    index     as a block: for every entry where its bytes begin and what its writer says of it; where the blocks lie
    trailer   8 bytes: where the index begins

Every file has a key of its own, derived with a random salt, so the number of a block can be its nonce: a block that was
moved, changed or taken from another file does not open. The index names all blocks, so none can be missing.
"""

import bz2
import hmac
import json
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from medveil.errors import UserError
from medveil.launch.release.secret import Secret

BLOCK = 900_000
"""Bytes of the stream in one block: what bzip2 sorts at a time. Small images share a block."""

_MAGIC = b"medveil key 1\n\0\0"
_HEADER = struct.Struct("<BB32s32s")
_TRAILER = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_BEGIN = len(_MAGIC) + _HEADER.size
_INDEX = 2**64 - 1
_COST = 17
"""scrypt takes 2^17 times 1 KiB of memory, about half a second."""
_COSTS = range(14, 21)
_MAX_FRAME = 1 << 30


class SealedWriter:
    """Writes the entries of one file in their order. The file is complete once the context is left without error."""

    def __init__(self, path: Path, secret: Secret) -> None:
        salt = os.urandom(32)
        cost = _COST if secret.is_passphrase else 0
        self._key, check = _derived(secret, salt, cost)
        self._header = _MAGIC + _HEADER.pack(secret.is_passphrase, cost, salt, check)
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._file.write(self._header)
        self._entries: list[dict[str, Any]] = []
        self._blocks: list[int] = []
        self._waiting = bytearray()
        self._length = 0

    def __enter__(self) -> "SealedWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        with self._file:
            if kind is None:
                self._finish()

    def add(self, about: Mapping[str, Any], content: Iterable[bytes]) -> None:
        """Append an entry: ``content`` piece by piece, and ``about``, plain values that the reader gets back."""
        start = self._length
        for piece in content:
            self._length += len(piece)
            self._waiting += piece
            while len(self._waiting) >= BLOCK:
                self._write_block(bytes(self._waiting[:BLOCK]))
                del self._waiting[:BLOCK]
        self._entries.append({"start": start, "length": self._length - start, "about": dict(about)})

    def _write_block(self, content: bytes) -> None:
        self._blocks.append(self._file.tell())
        self._write_frame(len(self._blocks) - 1, content)

    def _write_frame(self, number: int, content: bytes) -> None:
        small = bz2.compress(content)
        plain = b"\1" + small if len(small) < len(content) else b"\0" + content
        frame = _cipher(self._key).encrypt(_nonce(number), plain, self._header)
        self._file.write(_LENGTH.pack(len(frame)) + frame)

    def _finish(self) -> None:
        if self._waiting:
            self._write_block(bytes(self._waiting))
        begin = self._file.tell()
        index = {"length": self._length, "blocks": self._blocks, "entries": self._entries}
        self._write_frame(_INDEX, json.dumps(index, separators=(",", ":"), allow_nan=False).encode())
        self._file.write(_TRAILER.pack(begin))
        self._file.flush()
        os.fsync(self._file.fileno())


class SealedReader:
    """Opens what :class:`SealedWriter` wrote. ``entries``: what was said of each, in order. Threads may share it.

    Raises :class:`UserError`, here or when an entry is read, for another secret and for a file that was cut or changed.
    """

    def __init__(self, path: Path, secret: Secret) -> None:
        self.path = path
        self._header = header = _read_header(path)
        passphrase, cost, salt, check = _HEADER.unpack(header[len(_MAGIC) :])
        if bool(passphrase) != secret.is_passphrase:
            mend = "a passphrase, not with --key-from" if passphrase else "a key of 32 bytes: give it with --key-from"
            raise UserError(f"{path} opens with {mend}")
        if cost not in (_COSTS if passphrase else (0,)):
            raise self._damaged()
        self._key, ours = _derived(secret, salt, cost)
        if not hmac.compare_digest(ours, check):
            raise UserError(f"{path} does not open with this {'passphrase' if passphrase else '--key-from'}")
        self._file: IO[bytes] = path.open("rb")
        self._held: tuple[int, bytes] = (-1, b"")
        self._lock = threading.Lock()
        try:
            index = json.loads(self._read_frame(_INDEX, self._index_begin()))
            self._blocks, self._places = index["blocks"], index["entries"]
        except BaseException:
            self._file.close()
            raise
        self.entries: list[dict[str, Any]] = [place["about"] for place in self._places]

    def __enter__(self) -> "SealedReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, entry: int) -> Iterator[bytes]:
        """The content of an entry, piece by piece; a block that other entries share is opened once in a row."""
        at, left = self._places[entry]["start"], self._places[entry]["length"]
        while left:
            piece = self._block(at // BLOCK)[at % BLOCK :][:left]
            if not piece:
                raise self._damaged()
            yield piece
            at, left = at + len(piece), left - len(piece)

    def _block(self, number: int) -> bytes:
        with self._lock:
            if self._held[0] != number:
                self._held = number, self._read_frame(number, self._blocks[number])
            return self._held[1]

    def _index_begin(self) -> int:
        size = self._file.seek(0, os.SEEK_END)
        if size < _BEGIN + _LENGTH.size + _TRAILER.size:
            raise self._damaged()
        self._file.seek(size - _TRAILER.size)
        begin: int = _TRAILER.unpack(self._file.read(_TRAILER.size))[0]
        if not _BEGIN <= begin <= size - _TRAILER.size - _LENGTH.size:
            raise self._damaged()
        self._file.seek(begin)
        if begin + _LENGTH.size + _LENGTH.unpack(self._file.read(_LENGTH.size))[0] + _TRAILER.size != size:
            raise self._damaged()
        return begin

    def _read_frame(self, number: int, begin: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        self._file.seek(begin)
        length = self._file.read(_LENGTH.size)
        size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else 0
        if not 17 <= size <= _MAX_FRAME:
            raise self._damaged()
        try:
            plain = _cipher(self._key).decrypt(_nonce(number), self._file.read(size), self._header)
        except InvalidTag:
            raise self._damaged() from None
        return bz2.decompress(plain[1:]) if plain[:1] == b"\1" else plain[1:]

    def _damaged(self) -> UserError:
        return UserError(f"{self.path} is cut or was changed: fetch the key again")


def _read_header(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UserError(f"{path} is no file: name the key of the release")
        with path.open("rb") as file:
            header = file.read(_BEGIN)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name the key of the release") from None
    if len(header) < _BEGIN or not header.startswith(_MAGIC):
        raise UserError(f"{path} is no key: name the file that 'medveil protect --key' wrote")
    return header


def _derived(secret: Secret, salt: bytes, cost: int) -> tuple[bytes, bytes]:
    """The file's own key, 32 bytes, and 32 more that tell whether the secret is the right one."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if secret.is_passphrase:
        strong = Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(secret.value)
    else:
        strong = secret.value
    both = HKDF(algorithm=SHA256(), length=64, salt=salt, info=_MAGIC).derive(strong)
    return both[:32], both[32:]


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
