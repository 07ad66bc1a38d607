"""Where a sample came from: the file and what it was before it was read."""

from dataclasses import dataclass
from typing import NamedTuple


class OriginalFile(NamedTuple):
    """A file that was read: its name within the folder of the data set, and its sha256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Origin:
    """One sample before it was read. ``size``: width and height in pixels, upright; ``mode``: Pillow's word.

    ``file`` and ``masks``: the files it was read from, where it has its own.
    """

    name: str
    size: tuple[int, int]
    mode: str
    class_name: str | None = None
    file: OriginalFile | None = None
    masks: tuple[OriginalFile, ...] = ()
