"""What a data set is by the look of its name and folder, before a file of it is read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medveil.task import Task

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

MASK_NAME = re.compile(r"(.+)_mask(?:_\d+)?")
"""The stem of a mask in BUSI's layout."""


@dataclass(frozen=True)
class Layout:
    """``words``: for the screen. ``images``: how many pictures, or None where there is none and only reading
    tells what there is: generated, packed and medical sets. ``first``: one of the pictures.
    """

    task: Task
    words: str
    images: int | None = None
    first: Path | None = None

    def __str__(self) -> str:
        return f"{self.words}, {self.images} images" if self.images else self.words

    def side(self) -> int:
        """The shorter side of an image in pixels; 0 where only reading the data tells."""
        from PIL import Image

        if self.first is None or not self.first.is_file():
            return 0
        try:
            with Image.open(self.first) as image:
                return min(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return 0


def layout_of(spec: str) -> Layout | None:
    """The layout of the data set ``spec``; None where nothing is recognised, which opening it then explains."""
    scheme, _, rest = spec.partition(":")
    path = Path(spec).expanduser()
    if scheme == "phantom":
        if rest.startswith("seg"):
            return Layout("segmentation", "generated images with masks")
        return Layout("classification", "generated images with labels")
    if scheme == "medmnist" or path.suffix == ".npz":
        return Layout("classification", "a MedMNIST file")
    try:
        return _of_folder(path) if path.is_dir() else None
    except OSError:
        return None


def _of_folder(root: Path) -> Layout | None:
    images, masks = root / "images", root / "masks"
    if (root / "imagesTr").is_dir():
        return Layout("segmentation", "nnU-Net's imagesTr/ and labelsTr/")
    if images.is_dir() and masks.is_dir():
        return _pictured("segmentation", "images/ and masks/", _images(images))
    folders = _folders(root) or [root]
    files = [path for folder in folders for path in _images(folder)]
    pictures = [path for path in files if not MASK_NAME.fullmatch(path.stem)]
    if len(pictures) < len(files):
        return _pictured("segmentation", "images beside their masks (NAME_mask)", pictures)
    if any(path.suffix == ".npz" for path in root.iterdir()):
        return Layout("classification", "a MedMNIST file")
    classes = _folders(images if images.is_dir() else root)
    if not classes:
        return None
    pictures = [path for folder in classes for path in _images(folder)]
    return _pictured("classification", f"{len(classes)} class folders", pictures)


def _pictured(task: Task, words: str, pictures: Sequence[Path]) -> Layout:
    return Layout(task, words, len(pictures), pictures[0]) if pictures else Layout(task, words)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
