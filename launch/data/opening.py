"""From what the user types to a :class:`Source`."""

from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data import npz, phantom
from medveil.launch.data.folders import open_folder
from medveil.launch.data.medmnist_sets import fetch
from medveil.launch.data.source import Source

_FORMS = "a folder, a MedMNIST .npz, medmnist:NAME[:SIZE], phantom:seg or phantom:cls"


def open_data(
    spec: str, *, size: int | None = None, splits: tuple[str, ...] = ("train",), alone: bool = False
) -> Source:
    """The data set that ``spec`` names: a folder, a release, an npz, ``medmnist:NAME[:SIZE]`` or ``phantom:seg|cls``.

    ``size``: the side in pixels that the images of folders (224 unless told; a release keeps its own) and phantoms get,
    and which of its sizes is meant by ``medmnist:NAME``.
    ``splits``: the parts of an npz that are to be protected, in the npz's order within each. ``alone``: a folder of one
    class will do.

    Raises :class:`UserError` for whatever cannot be used as it is, naming the file.
    """
    if size is not None and not 16 <= size <= 4096:
        raise UserError(f"size {size} is out of range: give a side of 16 to 4096 pixels")
    scheme = spec.partition(":")[0]
    if scheme == "medmnist":
        return npz.open_npz(fetch(spec, size), spec, size=size, splits=splits)
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix == ".npz":
        return npz.open_npz(path, spec, size=size, splits=splits)
    inside = _release_npz(path)
    if inside:
        return npz.open_npz(inside, spec, size=size, splits=splits)
    if splits != ("train",):
        raise UserError(f"{spec} has no splits: leave out --splits, which is for MedMNIST npz files")
    if scheme == "phantom":
        return phantom.open_phantom(spec, size)
    if path.is_dir():
        return open_folder(path, spec, size, alone)
    if path.exists():
        raise UserError(f"{spec} is neither a folder nor an .npz file: give {_FORMS}")
    raise UserError(f"{spec} does not exist: give {_FORMS}")


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
