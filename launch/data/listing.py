"""What lies in a folder of images, by name; nothing of it is read here."""

from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data.images import SUFFIXES
from medveil.launch.data.seen import some


def listing(folder: Path) -> list[Path]:
    """What lies in ``folder``, sorted; hidden files are passed over."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from None
    for path in found:
        if not path.name.isprintable():
            raise UserError(f"{str(path)!a} has a name that is not plain text: rename it")
    return found


def images_in(folder: Path) -> list[Path]:
    return [p for p in listing(folder) if p.suffix.lower() in SUFFIXES and not p.is_dir()]


def refuse_loose(root: Path, folders: list[Path]) -> None:
    """An image beside the folders of a layout would be left out without a word."""
    if folders != [root] and (loose := images_in(root)):
        raise UserError(f"{loose[0]} lies beside the folders {folders[0].name}, ...: move it into one of them")


def files_in(folder: Path, notes: list[str]) -> dict[str, Path]:
    """The image files of ``folder`` by stem."""
    files: dict[str, Path] = {}
    others = []
    for path in listing(folder):
        if path.is_dir():
            raise UserError(f"{path} is a folder: images must lie directly in {folder}")
        if path.suffix.lower() not in SUFFIXES:
            others.append(path.name)
        elif path.stem in files:
            raise UserError(f"{files[path.stem]} and {path} have the same id {path.stem!r}: rename or remove one")
        else:
            files[path.stem] = path
    if others:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        notes.append(f"{some(len(others), 'file')} left out of {folder}, not PNG, JPEG, TIFF or BMP: {named}")
    return files
