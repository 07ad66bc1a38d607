"""Folders of image files: images with masks, BUSI's own layout, one folder per class, and releases of these."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medveil.errors import UserError
from medveil.launch.data.bad import BadFiles, attempt
from medveil.launch.data.grid import working_grid
from medveil.launch.data.images import Decoded, decoding, read_image, read_mask, read_size, resize
from medveil.launch.data.layout import MASK_NAME, SUFFIXES
from medveil.launch.data.listing import add_once, class_folders, files_in, images_in, listing, refuse_loose
from medveil.launch.data.native import NativeFile
from medveil.launch.data.not_classes import refuse_masks
from medveil.launch.data.seen import Sample, Seen, counted, mapped
from medveil.launch.data.source import MANIFEST, Source
from medveil.launch.data.store import Pixels, PixelStore

_LARGEST_SQUARE = 512


def open_folder(
    root: Path,
    spec: str,
    size: int | None,
    alone: bool = False,
    skip_bad: bool = False,
    classes: Mapping[str, str] | None = None,
) -> Source:
    """The data set in ``root``; its images become ``size`` x ``size``, unless told what ``working_grid`` says.

    Layouts: ``images/`` + ``masks/`` paired by stem; BUSI's (``X.png`` with ``X_mask.png``, ``X_mask_1.png``, ...,
    in ``root`` or subfolders); one folder per class, in ``root`` or in ``root/images`` (``alone``: one will do).
    ``classes``: of each image by its name, in place of class folders.
    Raises :class:`UserError` naming the files that cannot be used; with ``skip_bad`` these are left out, and noted.
    """
    notes: list[str] = []
    bad = BadFiles(root, skip_bad)
    images, masks = root / "images", root / "masks"
    if classes is not None:
        found = _in_table(images if images.is_dir() else root, classes, notes, bad)
        return _open_classes(found, root, spec, size, alone, notes, bad)
    if images.is_dir() and masks.is_dir():
        samples = _pair(files_in(images, notes), files_in(masks, notes), masks, bad)
    elif images.is_dir() and not any(p.is_dir() for p in listing(images)):
        raise UserError(f"{root} has images/ but no masks/: add one mask per image, of the same name")
    elif masked := _busi(root, notes):
        samples = _pair(*masked, None, bad)
    else:
        found = _in_folders(images if images.is_dir() else root, root, notes)
        return _open_classes(found, root, spec, size, alone, notes, bad)
    return _open_masked(samples, root, spec, size, notes, bad)


def _busi(root: Path, notes: list[str]) -> tuple[dict[str, Path], dict[str, Path]] | None:
    """Images and masks by stem if files here or one folder deeper are called ``*_mask``."""
    folders = [p for p in listing(root) if p.is_dir()] or [root]
    if not any(MASK_NAME.fullmatch(p.stem) for folder in folders for p in images_in(folder)):
        return None
    refuse_loose(root, folders, images_in(root))
    files: dict[str, Path] = {}
    for folder in folders:
        for stem, path in files_in(folder, notes).items():
            add_once(files, stem, path)
    masks = {stem: path for stem, path in files.items() if MASK_NAME.fullmatch(stem)}
    return {stem: path for stem, path in files.items() if stem not in masks}, masks


def _pair(images: dict[str, Path], masks: dict[str, Path], folder: Path | None, bad: BadFiles) -> list[Sample]:
    """Each image with its masks, which lie in ``folder`` or beside it: of the same stem, or of its stem and ``_mask``,
    ``_mask_1``, ...
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for stem, path in masks.items():
        suffixed = MASK_NAME.fullmatch(stem)
        owner = stem if stem in images or not suffixed else suffixed[1]
        if owner in images:
            found[owner].append(path)
        else:
            bad.add(owner, UserError(f"{path} has no image called {owner!r}: add the image or remove the mask"))
    for stem, path in images.items():
        if stem not in found:
            bad.add(stem, _without_mask(path, folder))
    return [Sample(stem, images[stem], found[stem]) for stem in sorted(images) if stem in found]


def _without_mask(image: Path, folder: Path | None) -> UserError:
    wanted = f"{image.stem}_mask" if folder is None else image.stem
    for path in listing(folder or image.parent):
        if path.stem == wanted and path != image and path.suffix.lower() not in SUFFIXES:
            return UserError(f"{path} is a {path.suffix[1:].upper()} file, which is not read as a mask: save it as PNG")
    place = f"{wanted}.png" if folder is None else f"{folder.name}/{wanted}.png"
    return UserError(f"{image} has no mask: add {place} or remove the image")


def _open_masked(
    samples: list[Sample], root: Path, spec: str, size: int | None, notes: list[str], bad: BadFiles
) -> Source:
    kept: list[Sample] = []
    with decoding():
        height, width = _size(samples, root, size, bad)
        images, masks = PixelStore(len(samples), height, width), PixelStore(len(samples), height, width)
        seen = Seen((height, width), root, size is not None)
        empty = lost = 0
        for sample, read in zip(samples, mapped(attempt(_read_masked), samples), strict=True):
            if isinstance(read, UserError):
                bad.add(sample.id, read)
                continue
            decoded, mask, digests = read
            images.put(len(kept), resize(decoded.pixels, (height, width))[None])
            small = resize(mask, (height, width), mask=True)
            masks.put(len(kept), small[None])
            empty += not mask.any()
            lost += bool(mask.any() and not small.any())
            seen.add(sample, decoded, digests)
            kept.append(sample)
    notes += _left_out(bad, kept, (images, masks))
    if empty == len(kept):
        raise UserError(f"{root}: every mask is empty: there is no region to protect; give masks with foreground")
    notes += seen.notes(images.channels)
    files = [
        NativeFile(one.image, tuple(one.masks), f"images/{one.id}.png", f"masks/{one.id}.png", i)
        for i, one in enumerate(kept)
    ]
    if empty:
        notes.append(f"{counted(empty, 'mask', len(kept))} empty")
    if lost:
        notes.append(
            f"{counted(lost, 'mask', len(kept))} empty after resizing: too little foreground for {width}x{height}"
        )
    return Source(
        spec=spec,
        name=_name(root),
        kind="segmentation-folder",
        data=images.dataset(masks, [s.id for s in kept], "segmentation", 1),
        test=None,
        class_names=None,
        notes=notes,
        fingerprint=seen.fingerprint(),
        folder=root,
        origins=seen.origins,
        files=files,
        left_out=tuple(bad.found),
    )


def _left_out(bad: BadFiles, kept: Sequence[Sample], stores: Sequence[PixelStore]) -> list[str]:
    """A note of the bad files. Raises UserError where they are not to be left out, or nothing else is there."""
    notes = bad.check()
    if not kept:
        raise UserError(f"{bad.root} holds no image that can be used: {bad.found[0][1]}")
    if bad.found:
        for store in stores:
            store.cut(len(kept))
    return notes


def _read_masked(sample: Sample) -> tuple[Decoded, Pixels, list[str]]:
    """The image, the union of its masks uint8 {0, 1} [H, W], and the masks' hashes."""
    image = read_image(sample.image)
    masks = [read_mask(path, image.orientation, image.size) for path in sample.masks]
    for path, mask in zip(sample.masks, masks, strict=True):
        if mask.size != image.size:
            sizes = f"{mask.size[0]}x{mask.size[1]} and its image {image.size[0]}x{image.size[1]}"
            raise UserError(f"{path} is {sizes} pixels: give a mask of the image's size")
    union: Pixels = np.maximum.reduce([mask.pixels for mask in masks])
    if any(mask.turned for mask in masks):
        image = replace(image, changes=(*image.changes[:-1], f"{image.changes[-1]}, its mask with it"))
    return image, union, [mask.sha256 for mask in masks]


def _read_image(sample: Sample) -> Decoded:
    return read_image(sample.image)


def _in_folders(folder: Path, root: Path, notes: list[str]) -> list[Sample]:
    """The images of the class folders in ``folder``."""
    classes = class_folders(folder)
    if not classes:
        raise UserError(f"{root} holds no data set: give it images/ and masks/, NAME_mask files, or a folder per class")
    refuse_loose(folder, classes, images_in(folder))
    found = {one.name: files_in(one, notes) for one in classes}
    for one in classes:
        if not found[one.name]:
            raise UserError(f"{one} holds no PNG, JPEG, TIFF or BMP image: fill the class folder or remove it")
    refuse_masks(folder, found, lambda path: read_image(path).pixels)
    return [
        Sample(f"{name}/{stem}", path, class_name=name) for name, files in found.items() for stem, path in files.items()
    ]


def _in_table(folder: Path, classes: Mapping[str, str], notes: list[str], bad: BadFiles) -> list[Sample]:
    """The images in ``folder``, with the classes that a table tells of their names."""
    samples = []
    for stem, path in files_in(folder, notes).items():
        if stem in classes:
            samples.append(Sample(stem, path, class_name=classes[stem]))
        else:
            bad.add(stem, UserError(f"{path} has no class in the table of --labels-from: add {stem}"))
    return samples


def _open_classes(
    samples: list[Sample], root: Path, spec: str, size: int | None, alone: bool, notes: list[str], bad: BadFiles
) -> Source:
    samples.sort(key=lambda sample: sample.id)
    _classes_of(samples, root, alone, bad)
    kept: list[Sample] = []
    with decoding():
        height, width = _size(samples, root, size, bad)
        images, seen = PixelStore(len(samples), height, width), Seen((height, width), root, size is not None)
        for sample, decoded in zip(samples, mapped(attempt(_read_image), samples), strict=True):
            if isinstance(decoded, UserError):
                bad.add(sample.id, decoded)
                continue
            images.put(len(kept), resize(decoded.pixels, (height, width))[None])
            seen.add(sample, decoded, [])
            kept.append(sample)
    notes += _left_out(bad, kept, (images,))
    names = _classes_of(kept, root, alone, bad)
    targets = torch.tensor([names.index(s.class_name or "") for s in kept])
    data = images.dataset(targets, [s.id for s in kept], "classification", len(names))
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
        files=[NativeFile(one.image, (), f"images/{_in_class(one)}.png", None, i) for i, one in enumerate(kept)],
        left_out=tuple(bad.found),
    )


def _classes_of(samples: Sequence[Sample], root: Path, alone: bool, bad: BadFiles) -> list[str]:
    """The names of their classes. Raises UserError for fewer than two, unless one ``alone`` will do."""
    names = sorted({sample.class_name or "" for sample in samples})
    if len(names) == 1 and not alone:
        bad.check()
        raise UserError(
            f"{root} has one class only ({names[0]}): there is nothing to classify "
            "(a class alone is protected with --support DATA)"
        )
    return names


def _in_class(sample: Sample) -> str:
    """The image's name in a release, within the folder of its class."""
    folder = f"{sample.class_name}/"
    return sample.id if sample.id.startswith(folder) else f"{folder}{sample.id}"


def _name(root: Path) -> str:
    name = root.resolve().name
    if not name.isprintable():
        raise UserError(f"{str(root)!a} has a name that is not plain text: rename it")
    return name


def _size(samples: list[Sample], root: Path, size: int | None, bad: BadFiles) -> tuple[int, int]:
    """Height and width of the data set."""
    if not samples:
        bad.check()
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
