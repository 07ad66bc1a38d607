"""The samples of a folder as they are read: several at a time, and what is kept and said of them."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from medveil.launch.data.images import Decoded
from medveil.launch.data.origins import Origin, OriginalFile

_BLOCK = 64
_NAMED = 3
"""Of images that are not as the others, so many are named."""

R = TypeVar("R")


@dataclass(frozen=True)
class Sample:
    """The files of one sample."""

    id: str
    image: Path
    masks: list[Path] = field(default_factory=list)
    class_name: str | None = None


def mapped(read: Callable[[Sample], R], samples: Sequence[Sample]) -> Iterator[R]:
    """``read`` of each sample in order, several at a time; block by block, so that few large images are in memory."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(samples), _BLOCK):
            yield from pool.map(read, samples[first : first + _BLOCK])


class Seen:
    """What is kept of the files as they are read, for origins, notes and fingerprint. ``squares``: whether the images
    are released at ``size`` (H, W), rather than at their own.
    """

    def __init__(self, size: tuple[int, int], root: Path, squares: bool) -> None:
        self.size, self.root, self.squares = size, root, squares
        self.origins: list[Origin] = []
        self._changes: Counter[str] = Counter()
        self._grey: list[str] = []
        self._coloured: list[str] = []
        self._spread = 0
        self._digest = hashlib.sha256()

    def add(self, sample: Sample, decoded: Decoded, digests: Sequence[str]) -> None:
        folder = f"{sample.image.parent.name}/" if sample.class_name else ""
        name = f"{folder}{sample.image.name}"
        file = self._file(sample.image, decoded.sha256)
        masks = tuple(self._file(*mask) for mask in zip(sample.masks, digests, strict=True))
        self.origins.append(Origin(name, decoded.size, decoded.mode, sample.class_name, file, masks))
        self._changes.update(decoded.changes)
        (self._grey if decoded.pixels.ndim == 2 else self._coloured).append(sample.id)
        self._spread += decoded.pixels.ndim == 2 and decoded.mode.startswith("RGB")
        # The id of an image in a class folder begins with the class; a table's may change under the same ids.
        label = [sample.class_name] if sample.class_name and not sample.id.startswith(f"{sample.class_name}/") else []
        self._digest.update("\x1f".join([sample.id, *label, decoded.sha256, *digests, ""]).encode())

    def _file(self, path: Path, sha256: str) -> OriginalFile:
        return OriginalFile(path.relative_to(self.root).as_posix(), sha256)

    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def notes(self, channels: int) -> list[str]:
        count = len(self.origins)
        notes = [f"{counted(n, 'image', count)} {change}" for change, n in sorted(self._changes.items())]
        if channels == 1 and self._spread:
            notes.append(f"{counted(self._spread, 'image', count)} stored as three equal channels: read as grey")
        if self._grey and self._coloured:
            notes.append(self._mixed())
        height, width = self.size
        sizes = sorted((o.size for o in self.origins if o.size != (width, height)), key=lambda s: (s[0] * s[1], s))
        if sizes:
            ends = [f"{w}x{h}" for w, h in (sizes[0], sizes[-1])]
            span = ends[0] if ends[0] == ends[1] else "..".join(ends)
            notes.append(f"{counted(len(sizes), 'image')} resized from {span} to {width}x{height}")
        return notes

    def _mixed(self) -> str:
        few, kind, others = min((self._coloured, "coloured", "grey"), (self._grey, "grey", "coloured"), key=_length)
        named = ", ".join(few[:_NAMED]) + (", ..." if len(few) > _NAMED else "")
        # One scan with a coloured mark is no reason to refuse a set, nor to change what the file shows.
        squares = (
            "all are released as RGB, and grey ones get coloured noise; without --size each keeps its own channels"
        )
        own = squares if self.squares else "each is released with its own channels, and grey ones with grey noise"
        return f"{counted(len(few), 'image', len(self.origins))} {kind} among {others} ones ({named}): {own}"


def _length(kind: tuple[list[str], str, str]) -> int:
    return len(kind[0])


def counted(part: int, noun: str, whole: int | None = None) -> str:
    """'1 image is', '3 images are', '1 of 4 images is'."""
    of = "" if whole is None else f" of {whole}"
    return f"{part}{of} {noun}{'s' if (whole or part) != 1 else ''} {'is' if part == 1 else 'are'}"
