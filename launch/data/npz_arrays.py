"""The arrays of an npz file: headers first, then block by block, without pickles."""

import hashlib
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from medveil.errors import UserError
from medveil.launch.data.store import PixelStore

Array = npt.NDArray[Any]

DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, UnicodeDecodeError)
"""What zipfile raises for an archive that is cut, changed, or packed in a way that it does not know."""

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Header:
    """What an array says of itself before its values."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def members(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Names of the arrays, sorted."""
    names = [info.filename for info in archive.infolist()]
    if len(set(names)) != len(names):
        raise UserError(f"{path} holds an array twice: write it again with numpy.savez")
    return sorted(name.removesuffix(".npy") for name in names if name.endswith(".npy"))


def read_header(file: IO[bytes]) -> Header:
    """The header that begins here. Raises ValueError."""
    try:
        read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        return Header(*read(file))
    except (TypeError, KeyError, SyntaxError, RecursionError, OverflowError, TokenError) as error:
        # Whatever numpy raises for a header that is not what it seems.
        raise ValueError(f"its header says nothing ({' '.join(str(error).split())})") from None


def header_of(archive: zipfile.ZipFile, name: str, path: Path) -> Header:
    """That of the array ``name``. Raises UserError for one that needs pickle, or is longer or shorter than it says."""
    try:
        with archive.open(f"{name}.npy") as file:
            header, begin = read_header(file), file.tell()
    except (ValueError, RuntimeError) as error:  # no npy header; encrypted or of an unknown compression
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: {name} cannot be read ({reason}): write it again with numpy.savez") from None
    if header.dtype.hasobject:
        raise UserError(f"{path}: {name} would need pickle, which may run code: save it as plain numbers")
    expected = begin + math.prod(header.shape) * header.dtype.itemsize
    if archive.getinfo(f"{name}.npy").file_size != expected:
        raise UserError(f"{path}: {name} is truncated or damaged: fetch or write the file again")
    return header


def _blocks(file: IO[bytes], header: Header) -> Iterator[tuple[int, Array]]:
    """The array's rows in C order, some at a time, each with its first index."""
    if 0 in header.shape:
        return
    if header.fortran or not header.shape:
        whole = np.frombuffer(file.read(), header.dtype)
        yield 0, whole.reshape(header.shape, order="F" if header.fortran else "C")
        return
    row = header.dtype.itemsize * math.prod(header.shape[1:])
    rows = max(1, _BLOCK_BYTES // row)
    for first in range(0, header.shape[0], rows):
        count = min(rows, header.shape[0] - first)
        yield first, np.frombuffer(file.read(count * row), header.dtype).reshape(count, *header.shape[1:])


def take(
    archive: zipfile.ZipFile,
    name: str,
    header: Header,
    digest: "hashlib._Hash",
    into: PixelStore | None,
    start: int,
    planes: int,
) -> None:
    """Hash one array, in one pass with storing it if it is wanted, a volume as its ``planes`` slices."""
    digest.update(f"{name}\x1f{header.dtype.str}\x1f{header.shape}\x1f".encode())
    with archive.open(f"{name}.npy") as file:
        read_header(file)
        for first, block in _blocks(file, header):
            digest.update(block.tobytes())
            if into is not None:
                into.put(start + first * planes, block.reshape(-1, *block.shape[2:]) if planes > 1 else block)
        # Reading to the end is what makes zipfile check the member's checksum.
        if file.read(1):
            raise EOFError(f"{name} is longer than its header says")
