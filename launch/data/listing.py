"""What lies in a folder of images, by name; nothing of it is read here."""

from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data.layout import SUFFIXES
from medveil.launch.data.seen import counted

LONGEST = 255
"""Bytes of a name."""

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def listing(folder: Path) -> list[Path]:
    """What lies in ``folder``, sorted; hidden files are passed over."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from None
    for path in found:
        if not is_plain(path.name):
            raise UserError(f"{str(path)!a} has a name that is not plain text: rename it")
    return found


def is_plain(name: str) -> bool:
    """Whether a release may have a file or folder of this name: no control characters, and none that separates."""
    return name.isprintable() and not {"/", "\\"} & set(name) and len(name.encode()) <= LONGEST


def add_once(files: dict[str, Path], stem: str, path: Path) -> None:
    """Enter ``path`` as ``stem``. Raises UserError where another file has that id."""
    if (other := files.setdefault(stem, path)) != path:
        raise UserError(f"{other} and {path} have the same id {stem!r}: rename or remove one")


def images_in(folder: Path) -> list[Path]:
    return [p for p in listing(folder) if p.suffix.lower() in SUFFIXES and not p.is_dir()]


def images_under(folder: Path) -> list[Path]:
    """The image files in ``folder`` at any depth, sorted; what is hidden is passed over."""
    found = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())


def class_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``. Raises UserError where they are called as splits."""
    found = [path for path in listing(folder) if path.is_dir()]
    names = [path.name for path in found]
    if found and {name.lower() for name in names} <= _SPLITS:
        raise UserError(
            f"{folder} holds splits ({', '.join(names)}), not classes: give one of them, such as {found[0]}"
        )
    return found


def refuse_loose(root: Path, folders: list[Path], loose: list[Path]) -> None:
    """The images ``loose`` in ``root`` beside the ``folders`` of a layout would be left out without a word."""
    if loose and folders not in ([], [root]):
        raise UserError(f"{loose[0]} lies beside the folders {folders[0].name}, ...: move it into one of them")


def left_out(others: list[str], folder: Path, known: str) -> list[str]:
    """A note of the files ``others`` of ``folder`` that are not ``known``, if there are any."""
    named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return [f"{counted(len(others), 'file')} left out of {folder}, not {known}: {named}"] if others else []


def files_in(folder: Path, notes: list[str]) -> dict[str, Path]:
    """The image files of ``folder`` by stem."""
    files: dict[str, Path] = {}
    others = []
    for path in listing(folder):
        if path.is_dir():
            raise UserError(f"{path} is a folder: images must lie directly in {folder}")
        if path.suffix.lower() not in SUFFIXES:
            others.append(path.name)
        else:
            add_once(files, path.stem, path)
    notes += left_out(others, folder, "PNG, JPEG, TIFF or BMP")
    return files
