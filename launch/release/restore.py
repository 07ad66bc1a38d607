"""From a release and its key to the originals: what is read and what is written are held against their hashes."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy
from pydantic import TypeAdapter, ValidationError

from medveil.errors import UserError
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.formats.windows import Values
from medveil.launch.data.images import decoding
from medveil.launch.data.npz_arrays import read_header
from medveil.launch.reading import STORED
from medveil.launch.release.manifest import Digest, Name, Text, check_outside_releases
from medveil.launch.release.npz import member_info
from medveil.launch.release.sealed import SealedReader
from medveil.launch.release.secret import Secret
from medveil.launch.release.voxels import rebuild, undone
from medveil.launch.running.files import make_private, sha256_of, sync_folder, sync_tree
from medveil.launch.running.places import check_place, draft_of
from medveil.launch.running.progress import shown

Bytes = npt.NDArray[np.uint8]

_MOST_WORKERS = 8
"""Threads, each with one picture: Pillow, bzip2 and hashes work side by side in them, the rest does not."""


@dataclass(frozen=True)
class Entry:
    """What one part of a key's content restores: the file ``name``, or of an npz the images of ``split``.

    ``form``: "difference" (original - released, modulo 256) of a picture or an "array" of pictures; "file", the whole
    original; "copy" of ``released``, without content. ``samples``: ids of the images that it belongs to; of an array
    all, of which those at ``opened`` have a difference. ``sha256``: of the restored values or file. ``kind``: the
    format of the file, whose own ``head`` of so many bytes comes before the difference.
    """

    __pydantic_config__ = STORED

    name: Name
    form: Literal["difference", "file", "copy", "array"]
    samples: tuple[Text, ...]
    released: Name
    released_sha256: Digest
    sha256: Digest
    split: Text = ""
    opened: tuple[int, ...] = (0,)
    kind: Kind = "picture"
    head: int = 0

    def opens(self) -> Iterator[str]:
        """The ids of the images that it restores or belongs to."""
        return (self.samples[i] for i in self.opened)

    @property
    def member(self) -> str:
        """The array's name in the npz."""
        return f"{self.split}_images.npy"


_ENTRIES = TypeAdapter(list[Entry])


def restore(release: Path, path: Path, secret: Secret, out: Path, only: Sequence[str] = (), quiet: bool = True) -> str:
    """Write the originals of ``release`` that the key ``path`` opens into the new folder ``out``; says what was done.

    ``only``: those whose ids match one of these patterns. Every file of the release that is needed is held against its
    hash before anything is written, and what is restored against the original's. Raises :class:`UserError`.
    """
    if os.path.lexists(out):
        raise UserError(f"{out} exists: choose another --out or remove it")
    check_place(out)
    check_outside_releases(out)
    with SealedReader(path, secret) as sealed, decoding():
        entries = entries_of(sealed)
        known = {sample for entry in entries for sample in entry.opens()}
        wanted = {sample for sample in known if not only or any(fnmatchcase(sample, one) for one in only)}
        if not wanted:
            raise UserError(f"{path} opens none of --only {','.join(only)}: it opens {len(known)} images")
        chosen = [number for number, entry in enumerate(entries) if not wanted.isdisjoint(entry.opens())]
        for name, digest in sorted({(entries[i].released, entries[i].released_sha256) for i in chosen}):
            if not (release / name).is_file() or sha256_of(release / name) != digest:
                raise UserError(
                    f"{release / name} is missing or not as it was released, so nothing is restored: fetch it again"
                )
        with _beside(out) as partial:
            _write_files(sealed, [i for i in chosen if entries[i].form != "array"], entries, release, partial, quiet)
            arrays = {entries[number].member: number for number in chosen if entries[number].form == "array"}
            if arrays:
                _write_npz(sealed, arrays, entries, release, partial, wanted)
            sync_tree(partial)
            partial.rename(out)
        sync_folder(out.parent)
    return f"restored {len(wanted)} of the {len(known)} images that {path} opens: {out}"


def entries_of(sealed: SealedReader) -> list[Entry]:
    """What the key holds. Raises :class:`UserError` for one of another kind."""
    try:
        return _ENTRIES.validate_json(json.dumps(sealed.entries))
    except ValidationError:
        raise UserError(f"{sealed.path} is of another version of medveil: restore with the one that wrote it") from None


def check(sealed: SealedReader, number: int, entry: Entry, release: Path) -> None:
    """Raise :class:`UserError` unless the entry restores exactly what it was made from."""
    digest = hashlib.sha256()
    for piece in _restored(sealed, number, entry, release):
        digest.update(piece)
    if digest.hexdigest() != entry.sha256:
        raise _differs(sealed, entry)


def next_image(file: IO[bytes], shape: tuple[int, ...], count: int) -> Bytes:
    """The next of the ``count`` images (of volumes: slices) of an array of ``shape``, read from ``file``, flat."""
    return np.frombuffer(file.read(int(np.prod(shape, dtype=np.int64)) // count), np.uint8)


def _restored(sealed: SealedReader, number: int, entry: Entry, release: Path) -> Iterator[bytes]:
    if entry.form == "array":
        with zipfile.ZipFile(release / entry.released) as archive, archive.open(entry.member) as file:
            shape = read_header(file).shape
            for image in _images(sealed, number, entry, file, shape, set(entry.samples)):
                yield image.tobytes()
    elif entry.form == "difference":
        yield _values(sealed, number, entry, release)[0].tobytes()
    else:
        yield from _content(sealed, number, entry, release)


def _content(sealed: SealedReader, number: int, entry: Entry, release: Path) -> Iterator[bytes]:
    return sealed.read(number) if entry.form == "file" else iter([(release / entry.released).read_bytes()])


def _values(sealed: SealedReader, number: int, entry: Entry, release: Path) -> tuple[Values, bytes]:
    """The stored values of the original, and what else its file holds."""
    released = formats.read(release / entry.released, entry.kind, identified=True).values
    content = b"".join(sealed.read(number))
    if len(content) != entry.head + released.nbytes:
        raise _differs(sealed, entry)
    return undone(released, content[entry.head :]), content[: entry.head]


def _images(
    sealed: SealedReader, number: int, entry: Entry, file: IO[bytes], shape: tuple[int, ...], wanted: Set[str]
) -> Iterator[Bytes]:
    """Every image of the array in ``file``, restored where it is opened and ``wanted``."""
    opened = {i for i in entry.opened if entry.samples[i] in wanted}
    waiting, pieces = bytearray(), sealed.read(number)
    for i in range(len(entry.samples)):
        image = next_image(file, shape, len(entry.samples))
        while len(waiting) < image.size and (piece := next(pieces, b"")):
            waiting += piece
        if len(waiting) < image.size:
            raise _differs(sealed, entry)
        difference = np.frombuffer(bytes(waiting[: image.size]), np.uint8)
        del waiting[: image.size]
        yield image + difference if i in opened else image


def _write_files(
    sealed: SealedReader, chosen: Sequence[int], entries: Sequence[Entry], release: Path, partial: Path, quiet: bool
) -> None:
    """Write the entries ``chosen``, pictures several at a time; where some fail, raises what the first of them does."""
    # Volumes are too large for several in memory, and pydicom's warnings are the whole process's.
    pictures = all(entries[number].kind == "picture" for number in chosen)
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS) if pictures else 1

    def one(number: int) -> None:
        _write(sealed, number, entries[number], release, partial / entries[number].name)

    with ThreadPoolExecutor(workers) as pool:
        # An error ends the iterator, which cancels what has not begun.
        for _ in shown(pool.map(one, chosen), len(chosen), f"restoring {release}", quiet):
            pass


def _write(sealed: SealedReader, number: int, entry: Entry, release: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    if entry.form == "difference":
        values, head = _values(sealed, number, entry, release)
        digest.update(values.tobytes())
        rebuild(target, entry.kind, head, values)
    else:
        with target.open("wb") as file:
            for piece in _content(sealed, number, entry, release):
                digest.update(piece)
                file.write(piece)
    if digest.hexdigest() != entry.sha256:
        raise _differs(sealed, entry)


def _write_npz(
    sealed: SealedReader,
    arrays: Mapping[str, int],
    entries: Sequence[Entry],
    release: Path,
    partial: Path,
    wanted: Set[str],
) -> None:
    """The release's npz with the images of ``arrays`` (an entry's number by the array's name) restored."""
    first = entries[next(iter(arrays.values()))]
    with (
        zipfile.ZipFile(release / first.released) as released,
        zipfile.ZipFile(partial / first.name, "w", allowZip64=True) as out,
    ):
        for member in released.infolist():
            with released.open(member) as file, out.open(member_info(member), "w", force_zip64=True) as target:
                if member.filename not in arrays:
                    shutil.copyfileobj(file, target, 1 << 20)
                    continue
                number, shape = arrays[member.filename], read_header(file).shape
                npy.write_array_header_1_0(target, {"descr": "|u1", "fortran_order": False, "shape": shape})
                digest = hashlib.sha256()
                for image in _images(sealed, number, entries[number], file, shape, wanted):
                    digest.update(image.tobytes())
                    target.write(image.tobytes())
                if wanted >= set(entries[number].opens()) and digest.hexdigest() != entries[number].sha256:
                    raise _differs(sealed, entries[number])


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A private folder to write to that is gone afterwards, unless it was renamed."""
    partial = draft_of(out)
    make_private(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _differs(sealed: SealedReader, entry: Entry) -> UserError:
    return UserError(
        f"{entry.name} does not come out of {sealed.path} as it was: the key was made with another release"
    )
