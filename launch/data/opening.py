"""From what the user types to a :class:`Source`."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medveil.config import LARGEST_SIDE, SMALLEST_SIDE
from medveil.errors import UserError
from medveil.launch.data import npz, phantom
from medveil.launch.data.config import AS_THEY_ARE, Reading
from medveil.launch.data.folders import open_folder
from medveil.launch.data.listing import is_plain
from medveil.launch.data.medical.folder import Asked, open_medical
from medveil.launch.data.medmnist_sets import fetch
from medveil.launch.data.source import MANIFEST, Source
from medveil.launch.data.tables import read_table

_FORMS = "a folder, a MedMNIST .npz, medmnist:NAME[:SIZE], phantom:seg or phantom:cls"


@dataclass(frozen=True)
class Opener:
    """Opens data sets for one job. ``cache``: where sets larger than memory are unpacked to, and stay; None: they are
    unpacked to files that vanish. ``skip_bad``: files of a folder that cannot be used are left out, not refused.
    ``reading``: how medical files are looked at. ``look``: what of them a training sees,
    see :class:`medveil.launch.data.medical.folder.Asked`.
    """

    cache: Path | None = None
    skip_bad: bool = False
    reading: Reading = AS_THEY_ARE
    look: str = "first"

    def open(
        self, spec: str, *, size: int | None = None, splits: tuple[str, ...] = ("train",), alone: bool = False
    ) -> Source:
        """The data set that ``spec`` names: a folder, a release, an npz, ``medmnist:NAME[:SIZE]`` or
        ``phantom:seg|cls``.

        ``size``: the side in pixels that the images of folders (224 unless told; a release keeps its own) and phantoms
        get, and which of its sizes is meant by ``medmnist:NAME``.
        ``splits``: the parts of an npz that are to be protected, in the npz's order within each. ``alone``: a folder of
        one class will do.

        Raises :class:`UserError` for whatever cannot be used as it is, naming the file.
        """
        if size is not None and not SMALLEST_SIDE <= size <= LARGEST_SIDE:
            raise UserError(f"size {size} is out of range: give a side of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")
        scheme = spec.partition(":")[0]
        if scheme == "medmnist":
            return npz.open_npz(fetch(spec, size), spec, size=size, splits=splits, cache=self.cache)
        path = Path(spec).expanduser()
        if path.is_file() and path.suffix == ".npz":
            return npz.open_npz(path, spec, size=size, splits=splits, cache=self.cache)
        inside = _release_npz(path)
        if inside:
            return npz.open_npz(inside, spec, size=size, splits=splits, cache=self.cache)
        if splits != ("train",):
            raise UserError(f"{spec} has no splits: leave out --splits, which is for MedMNIST npz files")
        if scheme == "phantom":
            return phantom.open_phantom(spec, size)
        if path.is_dir():
            classes = self._classes(path)
            medical = open_medical(path, spec, Asked(size, self.reading, self.look, self.skip_bad, classes))
            return medical or open_folder(path, spec, size, alone, self.skip_bad, classes)
        if path.exists():
            raise UserError(f"{spec} is neither a folder nor an .npz file: give {_FORMS}")
        raise UserError(f"{spec} does not exist: give {_FORMS}")

    def _classes(self, path: Path) -> dict[str, str] | None:
        """From the table that tells the class of each image; a release has class folders already."""
        if self.reading.labels_from is None or (path / MANIFEST).is_file():
            return None
        table = Path(self.reading.labels_from).expanduser()
        classes = read_table(table, "--labels-from", "class")
        for name in classes.values():
            # They become folders of the release.
            if name.startswith(".") or not is_plain(name):
                raise UserError(f"--labels-from {table}: {name!a} cannot be the name of a folder: rename the class")
        return classes

    def again(self, spec: str, size: int | None) -> Source:
        """As :meth:`open`, kept for the next training on the same files while these stay as they are."""
        return _opened(self, spec, size, stamp(spec))


Stamp = tuple[tuple[str, int, int], ...]


def stamp(spec: str) -> Stamp:
    """Names, times and sizes of the files of ``spec``: equal while these stay as they are."""
    path = Path(spec).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


@lru_cache(maxsize=3)
def _opened(opener: Opener, spec: str, size: int | None, _: Stamp) -> Source:
    return opener.open(spec, size=size)


def open_data(
    spec: str,
    *,
    size: int | None = None,
    splits: tuple[str, ...] = ("train",),
    alone: bool = False,
    skip_bad: bool = False,
) -> Source:
    """:meth:`Opener.open` without a cache."""
    return Opener(skip_bad=skip_bad).open(spec, size=size, splits=splits, alone=alone)


def _release_npz(path: Path) -> Path | None:
    """The one npz of a folder that holds nothing but npz files beside its manifest."""
    if not path.is_dir():
        return None
    found = sorted(p for p in path.iterdir() if p.suffix == ".npz" and not p.name.startswith("."))
    if not found or any(p.is_dir() for p in path.iterdir() if not p.name.startswith(".")):
        return None
    if len(found) > 1:
        raise UserError(f"{path} holds {len(found)} npz files: give one of them, such as {found[0]}")
    return found[0]
