"""Folders of image files: images with masks, BUSI's own layout, one folder per class, and releases of these."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from medveil.errors import UserError
from medveil.launch.data.images import SUFFIXES, Decoded, decoding, read_image, read_mask, read_size, resize
from medveil.launch.data.layout import MASK_NAME
from medveil.launch.data.native import NativeFile
from medveil.launch.data.source import MANIFEST, Origin, OriginalFile, Source
from medveil.launch.data.store import Pixels, PixelStore

DEFAULT_SIZE = 224
SHORT_SIDE = 256
_LARGEST_SQUARE = 512

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_BLOCK = 64
R = TypeVar("R")


@dataclass(frozen=True)
class _Sample:
    """The files of one sample."""

    id: str
    image: Path
    masks: list[Path] = field(default_factory=list)
    class_name: str | None = None


def open_folder(root: Path, spec: str, size: int | None, alone: bool = False) -> Source:
    """The data set in ``root``; its images become ``size`` x ``size``, or what :func:`working_grid` says unless told.

    Layouts: ``images/`` + ``masks/`` paired by stem; BUSI's (``X.png`` with ``X_mask.png``, ``X_mask_1.png``, ...,
    in ``root`` or subfolders); one folder per class, in ``root`` or in ``root/images`` (``alone``: one will do).
    Raises :class:`UserError` naming the file.
    """
    notes: list[str] = []
    images, masks = root / "images", root / "masks"
    if images.is_dir() and masks.is_dir():
        samples = _pair(_files(images, notes), _files(masks, notes), f"{masks.name}/")
    elif images.is_dir() and not any(p.is_dir() for p in _listing(images)):
        raise UserError(f"{root} has images/ but no masks/: add one mask per image, of the same name")
    elif masked := _busi(root, notes):
        samples = _pair(*masked, "")
    else:
        return _open_classes(images if images.is_dir() else root, root, spec, size, notes, alone)
    return _open_masked(samples, root, spec, size, notes)


def _listing(folder: Path) -> list[Path]:
    """What lies in ``folder``, sorted; hidden files are passed over."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from None
    for path in found:
        if not path.name.isprintable():
            raise UserError(f"{str(path)!a} has a name that is not plain text: rename it")
    return found


def _images(folder: Path) -> list[Path]:
    return [p for p in _listing(folder) if p.suffix.lower() in SUFFIXES and not p.is_dir()]


def _refuse_loose(root: Path, folders: list[Path]) -> None:
    """An image beside the folders of a layout would be left out without a word."""
    if folders != [root] and (loose := _images(root)):
        raise UserError(f"{loose[0]} lies beside the folders {folders[0].name}, ...: move it into one of them")


def _files(folder: Path, notes: list[str]) -> dict[str, Path]:
    """The image files of ``folder`` by stem."""
    files: dict[str, Path] = {}
    others = []
    for path in _listing(folder):
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
        notes.append(f"{_some(len(others), 'file')} left out of {folder}, not PNG, JPEG, TIFF or BMP: {named}")
    return files


def _busi(root: Path, notes: list[str]) -> tuple[dict[str, Path], dict[str, Path]] | None:
    """Images and masks by stem if files here or one folder deeper are called ``*_mask``."""
    folders = [p for p in _listing(root) if p.is_dir()] or [root]
    if not any(MASK_NAME.fullmatch(p.stem) for folder in folders for p in _images(folder)):
        return None
    _refuse_loose(root, folders)
    files: dict[str, Path] = {}
    for folder in folders:
        for stem, path in _files(folder, notes).items():
            if stem in files:
                raise UserError(f"{files[stem]} and {path} have the same id {stem!r}: rename or remove one")
            files[stem] = path
    masks = {stem: path for stem, path in files.items() if MASK_NAME.fullmatch(stem)}
    return {stem: path for stem, path in files.items() if stem not in masks}, masks


def _pair(images: dict[str, Path], masks: dict[str, Path], where: str) -> list[_Sample]:
    """Each image with its masks: of the same stem, or of its stem and ``_mask``, ``_mask_1``, ..."""
    found: dict[str, list[Path]] = defaultdict(list)
    for stem, path in masks.items():
        suffixed = MASK_NAME.fullmatch(stem)
        owner = stem if stem in images or not suffixed else suffixed[1]
        if owner not in images:
            raise UserError(f"{path} has no image called {owner!r}: add the image or remove the mask")
        found[owner].append(path)
    missing = [path for stem, path in images.items() if stem not in found]
    if missing:
        more = f" (nor have {len(missing) - 1} more)" if len(missing) > 1 else ""
        wanted = f"{where}{missing[0].stem}{'' if where else '_mask'}.png"
        raise UserError(f"{missing[0]} has no mask{more}: add {wanted} or remove the image")
    return [_Sample(stem, images[stem], found[stem]) for stem in sorted(images)]


def _open_masked(samples: list[_Sample], root: Path, spec: str, size: int | None, notes: list[str]) -> Source:
    with decoding():
        height, width = _size(samples, root, size)
        images, masks = PixelStore(len(samples), height, width), PixelStore(len(samples), height, width)
        seen = _Seen((height, width), root)
        empty = lost = 0
        for i, (decoded, mask, digests) in enumerate(_mapped(_read_masked, samples)):
            images.put(i, resize(decoded.pixels, (height, width))[None])
            small = resize(mask, (height, width), mask=True)
            masks.put(i, small[None])
            empty += not mask.any()
            lost += bool(mask.any() and not small.any())
            seen.add(samples[i], decoded, digests)
    notes += seen.notes(images.channels)
    files = [
        NativeFile(one.image, tuple(one.masks), f"images/{one.id}", f"masks/{one.id}", i)
        for i, one in enumerate(samples)
    ]
    if empty:
        notes.append(f"{_some(empty, 'mask', len(samples))} empty")
    if lost:
        notes.append(
            f"{_some(lost, 'mask', len(samples))} empty after resizing: too little foreground for {width}x{height}"
        )
    data = images.dataset(masks, [s.id for s in samples], "segmentation", 1)
    return Source(
        spec=spec,
        name=_name(root),
        kind="segmentation-folder",
        data=data,
        test=None,
        class_names=None,
        notes=notes,
        fingerprint=seen.fingerprint(),
        folder=root,
        origins=seen.origins,
        files=files,
    )


def _read_masked(sample: _Sample) -> tuple[Decoded, Pixels, list[str]]:
    """The image, the union of its masks uint8 {0, 1} [H, W], and the masks' hashes."""
    image = read_image(sample.image)
    masks = [read_mask(path) for path in sample.masks]
    for path, mask in zip(sample.masks, masks, strict=True):
        if mask.size != image.size:
            sizes = f"{mask.size[0]}x{mask.size[1]} and its image {image.size[0]}x{image.size[1]}"
            raise UserError(f"{path} is {sizes} pixels: give a mask of the image's size")
    union: Pixels = np.maximum.reduce([mask.pixels for mask in masks])
    return image, union, [mask.sha256 for mask in masks]


def _open_classes(
    folder: Path, root: Path, spec: str, size: int | None, notes: list[str], alone: bool = False
) -> Source:
    classes = [p for p in _listing(folder) if p.is_dir()]
    if not classes:
        raise UserError(f"{root} holds no data set: give it images/ and masks/, NAME_mask files, or a folder per class")
    _refuse_loose(folder, classes)
    names = [p.name for p in classes]
    if {name.lower() for name in names} <= _SPLITS:
        raise UserError(
            f"{folder} holds splits ({', '.join(names)}), not classes: give one of them, such as {classes[0]}"
        )
    samples = []
    for one in classes:
        files = _files(one, notes)
        if not files:
            raise UserError(f"{one} holds no PNG, JPEG, TIFF or BMP image: fill the class folder or remove it")
        samples += [_Sample(f"{one.name}/{stem}", path, class_name=one.name) for stem, path in files.items()]
    if len(names) < 2 and not alone:
        raise UserError(
            f"{folder} has one class folder only ({names[0]}): there is nothing to classify "
            "(a class alone is protected with --support DATA)"
        )
    samples.sort(key=lambda sample: sample.id)
    with decoding():
        height, width = _size(samples, root, size)
        images, seen = PixelStore(len(samples), height, width), _Seen((height, width), root)
        for i, decoded in enumerate(_mapped(lambda sample: read_image(sample.image), samples)):
            images.put(i, resize(decoded.pixels, (height, width))[None])
            seen.add(samples[i], decoded, [])
    targets = torch.tensor([names.index(s.class_name or "") for s in samples])
    data = images.dataset(targets, [s.id for s in samples], "classification", len(names))
    return Source(
        spec=spec,
        name=_name(root),
        kind="class-folder",
        data=data,
        test=None,
        class_names=names,
        notes=notes + seen.notes(images.channels),
        fingerprint=seen.fingerprint(),
        folder=root,
        origins=seen.origins,
        files=[NativeFile(one.image, (), f"images/{one.id}", None, i) for i, one in enumerate(samples)],
    )


def _some(part: int, noun: str, whole: int | None = None) -> str:
    """'1 image is', '3 images are', '1 of 4 images is'."""
    of = "" if whole is None else f" of {whole}"
    return f"{part}{of} {noun}{'s' if (whole or part) != 1 else ''} {'is' if part == 1 else 'are'}"


def _name(root: Path) -> str:
    return root.resolve().name


def _size(samples: list[_Sample], root: Path, size: int | None) -> tuple[int, int]:
    """Height and width of the data set."""
    if not samples:
        raise UserError(f"{root} holds no PNG, JPEG, TIFF or BMP images: there is nothing to protect")
    if size is not None:
        return size, size
    sizes = {read_size(sample.image) for sample in samples}
    if (root / MANIFEST).is_file() and len(sizes) == 1:
        # A release in squares was made at their size.
        height, width = sizes.copy().pop() or (0, 0)
        if height == width and 0 < height <= _LARGEST_SQUARE:
            return height, width
    return working_grid(sizes)


def working_grid(sizes: Collection[tuple[int, int] | None]) -> tuple[int, int]:
    """Height and width that images of ``sizes`` (height, width; None: unreadable) are fitted at.

    Images of one size: their own aspect, with a shorter side of at most 256. Of several sizes: 224 x 224.
    """
    known = {size for size in sizes if size is not None and min(size) > 0}
    if len(known) != 1:
        return DEFAULT_SIZE, DEFAULT_SIZE
    ((height, width),) = known
    scale = min(1.0, SHORT_SIDE / min(height, width))
    return round(height * scale), round(width * scale)


def _mapped(read: Callable[[_Sample], R], samples: Sequence[_Sample]) -> Iterator[R]:
    """``read`` of each sample in order, several at a time; block by block, so that few large images are in memory."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(samples), _BLOCK):
            yield from pool.map(read, samples[first : first + _BLOCK])


class _Seen:
    """What is kept of the files as they are read, for origins, notes and fingerprint."""

    def __init__(self, size: tuple[int, int], root: Path) -> None:
        self.size, self.root = size, root
        self.origins: list[Origin] = []
        self._changes: Counter[str] = Counter()
        self._grey = 0
        self._spread = 0
        self._digest = hashlib.sha256()

    def add(self, sample: _Sample, decoded: Decoded, digests: Sequence[str]) -> None:
        folder = f"{sample.image.parent.name}/" if sample.class_name else ""
        name = f"{folder}{sample.image.name}"
        file = self._file(sample.image, decoded.sha256)
        masks = tuple(self._file(*mask) for mask in zip(sample.masks, digests, strict=True))
        self.origins.append(Origin(name, decoded.size, decoded.mode, sample.class_name, file, masks))
        self._changes.update(decoded.changes)
        self._grey += decoded.pixels.ndim == 2
        self._spread += decoded.pixels.ndim == 2 and decoded.mode.startswith("RGB")
        self._digest.update("\x1f".join([sample.id, decoded.sha256, *digests, ""]).encode())

    def _file(self, path: Path, sha256: str) -> OriginalFile:
        return OriginalFile(path.relative_to(self.root).as_posix(), sha256)

    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def notes(self, channels: int) -> list[str]:
        count = len(self.origins)
        notes = [f"{_some(n, 'image', count)} {change}" for change, n in sorted(self._changes.items())]
        if channels == 1 and self._spread:
            notes.append(f"{_some(self._spread, 'image', count)} stored as three equal channels: read as grey")
        if channels == 3 and self._grey:
            notes.append(f"{_some(self._grey, 'image', count)} grey among coloured ones: all are read as RGB")
        height, width = self.size
        sizes = sorted((o.size for o in self.origins if o.size != (width, height)), key=lambda s: (s[0] * s[1], s))
        if sizes:
            ends = [f"{w}x{h}" for w, h in (sizes[0], sizes[-1])]
            span = ends[0] if ends[0] == ends[1] else "..".join(ends)
            notes.append(f"{_some(len(sizes), 'image')} resized from {span} to {width}x{height}")
        return notes
