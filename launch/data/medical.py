"""Data sets of medical files: DICOM, NIfTI, grey pictures of 16 bits; volumes are cut into slices.

Layouts: ``images/`` + ``masks/`` paired by name, nnU-Net's (``imagesTr/``, ``labelsTr/``, ``dataset.json``), and one
folder per class, in the root or in ``images/``.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from medveil.errors import UserError
from medveil.launch.data.config import Reading
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.dicom import read_dataset
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import CT, Values, Window, parse_windows, percentile_window
from medveil.launch.data.grid import working_grid
from medveil.launch.data.images import decoding, resize
from medveil.launch.data.listing import listing
from medveil.launch.data.native import NativeFile
from medveil.launch.data.not_classes import refuse_masks
from medveil.launch.data.source import Origin, OriginalFile, Source
from medveil.launch.data.store import PixelStore
from medveil.launch.reading import STORED, read_as
from medveil.launch.running.files import sha256_of
from medveil.task import Task

DATASET = "dataset.json"
"""nnU-Net's description of a set."""


@dataclass(frozen=True)
class _File:
    """One image file with its mask. ``group``: what its window is common to."""

    id: str
    image: Path
    kind: Kind
    name: str
    mask: Path | None = None
    mask_name: str | None = None
    class_name: str | None = None


def open_medical(root: Path, spec: str, size: int | None, reading: Reading) -> Source | None:
    """The set in ``root``; None where it holds no medical file, but plain pictures. Raises :class:`UserError`."""
    declared = None if reading.windows is None else parse_windows(reading.windows)
    about: _Description | None = None
    task: Task = "segmentation"
    with decoding():
        if (root / "imagesTr").is_dir() and (root / DATASET).exists():
            found, about = _nnunet(root), _description(root)
            declared = declared or (CT if about.is_ct else None)
        elif (root / "images").is_dir() and (root / "masks").is_dir():
            found = _paired(root / "images", root / "masks")
        else:
            found, task = _classes(root / "images" if (root / "images").is_dir() else root), "classification"
    kinds = {file.kind for file in found}
    if about is None and (kinds <= {"picture"} or kinds == {"picture", "sixteen"}):
        return None
    if task == "classification":
        names = {file.class_name or "" for file in found}
        refuse_masks(root, {name: [file.image for file in found if file.class_name == name] for name in names})
    if about is None and (odd := next((file for file in found if file.kind == "picture"), None)):
        raise UserError(f"{odd.image} is a picture of 8 bits among medical files: keep them in sets of their own")
    source = _open(found, root, spec, size, reading, declared, task)
    return source if about is None else replace(source, others=about.of)


def _kinds(folder: Path) -> Iterator[tuple[Path, Kind]]:
    """The image files of ``folder``, sorted."""
    for path in listing(folder) if folder.is_dir() else ():
        if path.is_file() and (kind := formats.kind_of(path)) is not None:
            yield path, kind


def _paired(images: Path, masks: Path) -> list[_File]:
    by_stem: dict[str, Path] = {formats.stem_of(path): path for path, _ in _kinds(masks)}
    found = []
    for path, kind in _kinds(images):
        stem = formats.stem_of(path)
        if kind != "picture" and stem not in by_stem:
            raise UserError(f"{path} has no mask: add {masks / stem}{formats.suffix_of(path)} or remove the image")
        found.append(_File(stem, path, kind, f"images/{stem}", by_stem.get(stem), f"masks/{stem}"))
    return found


def _nnunet(root: Path) -> list[_File]:
    """``imagesTr/CASE_0000.EXT`` with ``labelsTr/CASE.EXT``: a file for each channel."""
    labels = {formats.stem_of(path): path for path, _ in _kinds(root / "labelsTr")}
    found = []
    for path, kind in _kinds(root / "imagesTr"):
        stem = formats.stem_of(path)
        case, _, channel = stem.rpartition("_")
        if not (case and len(channel) == 4 and channel.isdecimal()):
            raise UserError(f"{path} is not called CASE_0000 as nnU-Net names the channels of a case: rename it")
        if case not in labels:
            raise UserError(
                f"{path} has no label map: add labelsTr/{case}{formats.suffix_of(path)} or remove the image"
            )
        found.append(_File(stem, path, kind, f"imagesTr/{stem}", labels[case], f"labelsTr/{case}"))
    return found


@dataclass(frozen=True)
class _Description:
    """What nnU-Net is told of a set."""

    __pydantic_config__ = STORED

    channel_names: dict[str, str]
    labels: dict[str, int | list[int]]
    file_ending: str

    @property
    def is_ct(self) -> bool:
        """Whether all channels are."""
        return bool(self.channel_names) and all(name.upper() == "CT" for name in self.channel_names.values())

    def of(self, files: Sequence[NativeFile]) -> Mapping[str, str]:
        """Of a release of ``files``: what nnU-Net needs, and nothing else that was written there."""
        told = {**asdict(self), "numTraining": len({file.mask for file in files})}
        return {DATASET: json.dumps(told, indent=1) + "\n"}


def _description(root: Path) -> _Description:
    try:
        return read_as(_Description, root / DATASET, "nnU-Net's description of a set", "write it anew")
    except FileNotFoundError:
        raise UserError(f"{root / DATASET} is not there any more") from None


def _classes(folder: Path) -> list[_File]:
    found = []
    for one in (path for path in listing(folder) if path.is_dir()):
        for path, kind in _kinds(one):
            stem = f"{one.name}/{formats.stem_of(path)}"
            found.append(_File(stem, path, kind, f"images/{stem}", class_name=one.name))
    return found


def _open(
    found: Sequence[_File],
    root: Path,
    spec: str,
    size: int | None,
    reading: Reading,
    declared: tuple[Window, ...] | None,
    task: Task,
) -> Source:
    if len({file.id for file in found}) < len(found):
        raise UserError(f"{root} has two images of one name with different suffixes: rename or remove one")
    with decoding():
        shapes = [_shape(file, reading) for file in found]
        windows = _windows(found, reading, declared)
        height, width = (size, size) if size is not None else working_grid({shape[1:3] for shape in shapes})
        count = sum(shape[0] for shape in shapes)
        images, masks = PixelStore(count, height, width), PixelStore(count, height, width)
        files: list[NativeFile] = []
        origins: list[Origin] = []
        ids: list[str] = []
        digest, empty = hashlib.sha256(), 0
        for file, window in zip(found, windows, strict=True):
            stored, first = _read(file, reading), len(ids)
            foreground = None if file.mask is None else _foreground(file, stored, reading)
            own = [file.id] if stored.planes == 1 else [f"{file.id}/{plane:04d}" for plane in range(stored.planes)]
            kept = [
                OriginalFile(path.relative_to(root).as_posix(), sha256_of(path))
                for path in (file.image, file.mask)
                if path
            ]
            for plane, sample in enumerate(own):
                images.put(first + plane, resize(stored.grey(plane, window[0]), (height, width))[None])
                if foreground is not None:
                    small = resize(foreground[plane].astype(np.uint8), (height, width), mask=True)
                    masks.put(first + plane, small[None])
                    empty += not foreground[plane].any()
                origins.append(
                    Origin(
                        sample, stored.size[::-1], str(stored.values.dtype), file.class_name, kept[0], tuple(kept[1:])
                    )
                )
            ids += own
            digest.update("\x1f".join([file.id, *(one.sha256 for one in kept), repr(window), ""]).encode())
            files.append(_native(file, first, stored, window, reading))
    names = sorted({file.class_name for file in found if file.class_name is not None})
    notes = [*_notes(found, windows, count), *([f"{empty} of {count} slices have an empty mask"] if empty else [])]
    if task == "segmentation":
        data = images.dataset(masks, ids, "segmentation", 1)
    else:
        if len(names) < 2:
            raise UserError(f"{root} has one class folder only: there is nothing to classify")
        targets = torch.tensor([names.index(origin.class_name or "") for origin in origins])
        data = images.dataset(targets, ids, "classification", len(names))
    return Source(
        spec=spec,
        name=root.resolve().name,
        kind="segmentation-folder" if task == "segmentation" else "class-folder",
        data=data,
        test=None,
        class_names=names or None,
        notes=notes,
        fingerprint=digest.hexdigest(),
        folder=root,
        origins=origins,
        files=files,
    )


def _read(file: _File, reading: Reading) -> Stored:
    return formats.read(file.image, file.kind, identified=reading.identified)


def _shape(file: _File, reading: Reading) -> tuple[int, int, int]:
    stored = _read(file, reading)
    return (stored.planes, *stored.size)


def _windows(found: Sequence[_File], reading: Reading, declared: tuple[Window, ...] | None) -> list[tuple[Window, ...]]:
    """Of each file: as declared, else its own, where all of its series have the same, else the percentiles of what
    belongs together: a volume, a series, or all pictures of a set. Never of a slice.
    """
    groups: dict[str, list[_File]] = defaultdict(list)
    for file in found:
        groups[_group(file)].append(file)
    by_group = {}
    for name, members in groups.items():
        if declared is not None:
            by_group[name] = declared
            continue
        own = {_read(file, reading).windows for file in members}
        by_group[name] = own.pop() if len(own) == 1 else ()
        if not by_group[name]:
            read = [_read(file, reading) for file in members]
            if len({one.scale for one in read}) > 1:
                raise UserError(
                    f"{members[0].image} and others of its series have different rescale slopes: split them"
                )
            window = percentile_window([one.image_values() for one in read], read[0].scale)
            # Where every value is the same there is nothing to change, whatever it is looked at through.
            low = float(read[0].scale.values(read[0].values.ravel()[:1])[0])
            by_group[name] = (window or Window("one value", low - 0.5, low + 0.5),)
    return [by_group[_group(file)] for file in found]


def _group(file: _File) -> str:
    if file.kind == "dicom":
        return str(read_dataset(file.image, pixels=False).get("SeriesInstanceUID", file.id))
    return file.id if file.kind == "nifti" else "pictures"


def _foreground(file: _File, stored: Stored, reading: Reading) -> Values:
    """Where the label map has one of the labels, bool [P, H, W]."""
    assert file.mask is not None
    labels = formats.read_labels(file.mask)
    if labels.shape != stored.values.shape[:3]:
        sides = "x".join(map(str, labels.shape))
        raise UserError(
            f"{file.mask} is {sides} and its image {'x'.join(map(str, stored.values.shape[:3]))}: give equal ones"
        )
    return np.isin(labels, reading.labels) if reading.labels else labels > 0


def _native(file: _File, first: int, stored: Stored, windows: tuple[Window, ...], reading: Reading) -> NativeFile:
    return NativeFile(
        image=file.image,
        masks=() if file.mask is None else (file.mask,),
        name=f"{file.name}{formats.suffix_of(file.image)}",
        mask=None if file.mask is None or file.mask_name is None else f"{file.mask_name}{formats.suffix_of(file.mask)}",
        first=first,
        planes=stored.planes,
        windows=windows,
        kind=file.kind,
        labels=reading.labels,
        identified=reading.identified,
        raw=True,
        step=stored.step,
    )


def _notes(found: Sequence[_File], windows: Sequence[tuple[Window, ...]], count: int) -> list[str]:
    kinds = sorted({file.kind for file in found})
    used = sorted({f"{one.name} ({one.low:g} to {one.high:g})" for own in windows for one in own})
    shown = ", ".join(used[:4]) + (f" and {len(used) - 4} more" if len(used) > 4 else "")
    return [f"{len(found)} files ({', '.join(kinds)}), {count} slices; windows: {shown}"]
