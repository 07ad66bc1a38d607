"""Data sets of medical files: DICOM, NIfTI, grey pictures of 16 bits; volumes are cut into slices.

Layouts: ``images/`` + ``masks/`` paired by name, nnU-Net's (``imagesTr/``, ``labelsTr/``, ``dataset.json``), and one
folder per class, in the root or in ``images/``, or a table of the images' classes.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import torch

from medveil import keyed
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.launch.data.bad import BadFiles, attempt
from medveil.launch.data.config import Reading
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats import series
from medveil.launch.data.formats.normalise import NORMALISATIONS, Normalisation, normalised, window_of
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import CT, Values, Window, parse_windows
from medveil.launch.data.grid import working_grid
from medveil.launch.data.images import decoding, resize
from medveil.launch.data.labels import MOST, Foreground, numbered
from medveil.launch.data.listing import add_once
from medveil.launch.data.medical.datalists import DATASET, Description, datalist
from medveil.launch.data.medical.files import MedicalFile, in_classes, in_table, of_nnunet, paired
from medveil.launch.data.medical.graded import Graded
from medveil.launch.data.medical.windows import Looked, windows_of
from medveil.launch.data.native import NativeFile
from medveil.launch.data.not_classes import refuse_masks
from medveil.launch.data.origins import Origin, OriginalFile
from medveil.launch.data.source import Source
from medveil.launch.data.store import PixelStore
from medveil.launch.running.files import sha256_of
from medveil.task import Task

_SHOWN = 4
"""Of windows, and of forms of files."""


@dataclass(frozen=True)
class Asked:
    """How a set is opened: ``look`` is what a training sees of an image: its first declared window, one drawn for each
    slice, or a normalisation. ``classes``: of each image, from a table. The rest is as of
    :class:`medveil.launch.data.opening.Opener`.
    """

    size: int | None
    reading: Reading
    look: str
    skip_bad: bool
    classes: Mapping[str, str] | None


def open_medical(root: Path, spec: str, asked: Asked) -> Source | None:
    """The set in ``root``; None where it holds no medical file, but plain pictures. Raises :class:`UserError`."""
    reading, bad = asked.reading, BadFiles(root, asked.skip_bad)
    if len(set(reading.labels)) > MOST:
        raise UserError(f"--labels names {len(set(reading.labels))} values: at most {MOST} are told apart")
    declared = None if reading.windows is None else parse_windows(reading.windows)
    about: Description | None = None
    task: Task = "segmentation"
    images = root / "images" if (root / "images").is_dir() else root
    notes: list[str] = []
    with decoding():
        if (root / "imagesTr").is_dir() and (root / DATASET).exists():
            found, about = of_nnunet(root, notes, bad), Description.read(root)
            declared = declared or (CT if about.is_ct else None)
        elif asked.classes is not None:
            found, task = in_table(images, asked.classes, notes, bad), "classification"
        elif images != root and (root / "masks").is_dir():
            found = paired(images, root / "masks", notes, bad)
        else:
            found, task = in_classes(images, notes), "classification"
    kinds = {file.kind for file in found}
    if about is None and (kinds == {"picture", "sixteen"} or (kinds <= {"picture"} and not (bad.found and not kinds))):
        return None
    if task == "classification":
        classes: dict[str, dict[str, MedicalFile]] = defaultdict(dict)
        for file in found:
            classes[file.class_name or ""][PurePath(file.id).name] = file
        refuse_masks(root, classes, lambda file: _read(file, reading).values)
    if about is None and (odd := next((file for file in found if file.kind == "picture"), None)):
        raise UserError(f"{odd.image} is a picture of 8 bits among medical files: keep them in sets of their own")
    source = _open(found, root, spec, asked, declared, task, notes, bad)
    return replace(source, others=datalist if about is None else about.of)


def _open(
    found: Sequence[MedicalFile],
    root: Path,
    spec: str,
    asked: Asked,
    declared: tuple[Window, ...] | None,
    task: Task,
    notes: list[str],
    bad: BadFiles,
) -> Source:
    files: dict[str, Path] = {}
    for file in found:
        add_once(files, file.id, file.image)
    reading = asked.reading
    with decoding():
        looked = _usable(found, reading, bad)
        notes += bad.check()
        if not looked:
            raise UserError(f"{root} holds no image that can be used: {bad.found[0][1]}")
        windows = windows_of(looked, reading, declared)
        sizes = {(one.shape[1], one.shape[2]) for one in looked}
        height, width = (asked.size, asked.size) if asked.size is not None else working_grid(sizes)
        values = tuple(sorted(set(reading.labels) or set().union(*(one.labels for one in looked))))
        values = values if len(values) <= MOST else ()
        filled = _Filled(sum(one.shape[0] for one in looked), height, width, asked, values)
        for one, own in zip(looked, windows, strict=True):
            filled.add(one.file, own, root)
    if task == "segmentation" and filled.empty == filled.count:
        asked_for = f"--labels {','.join(map(str, reading.labels))} is" if reading.labels else "a label but 0 is"
        raise UserError(f"{root} has nothing to protect: {asked_for} in none of its label maps")
    notes += [*_notes(looked, windows, filled.count), *filled.notes()]
    names = sorted({one.file.class_name for one in looked if one.file.class_name is not None})
    if task == "classification" and len(names) < 2:
        raise UserError(f"{root} has one class only: there is nothing to classify")
    maps = filled.dataset(task, names)
    return Source(
        spec=spec,
        name=root.resolve().name,
        kind="segmentation-folder" if task == "segmentation" else "class-folder",
        data=Foreground(maps) if len(values) > 1 else maps,
        test=None,
        class_names=names or None,
        notes=notes,
        fingerprint=filled.digest.hexdigest(),
        folder=root,
        origins=filled.origins,
        files=filled.files,
        left_out=tuple(bad.found),
        labels=values,
        label_maps=maps if task == "segmentation" else None,
    )


class _Filled:
    """The samples of a set as its files are read, one after the other."""

    def __init__(self, count: int, height: int, width: int, asked: Asked, labels: tuple[int, ...]) -> None:
        self.size, self.asked, self.labels = (height, width), asked, labels
        self.images, self.masks = PixelStore(count, height, width), PixelStore(count, height, width)
        self.graded: list[torch.Tensor] = []
        self.files: list[NativeFile] = []
        self.origins: list[Origin] = []
        self.ids: list[str] = []
        self.empty = 0
        self.digest = hashlib.sha256(repr((asked.look, asked.reading.labels)).encode())

    @property
    def count(self) -> int:
        return len(self.ids)

    def add(self, file: MedicalFile, windows: tuple[Window, ...], root: Path) -> None:
        """Read the file, once more, and put its slices in."""
        stored, first, reading = _read(file, self.asked.reading), self.count, self.asked.reading
        labels = _labels(file, stored)
        own = [file.id] if stored.planes == 1 else [f"{file.id}/{plane:04d}" for plane in range(stored.planes)]
        drawn = keyed.integers(0, "window", 0, keyed.keys_of(own), len(windows)).tolist()
        drawn = drawn if self.asked.look == "drawn" else [0] * len(own)
        how = next((one for one in NORMALISATIONS if one == self.asked.look), None)
        images = [OriginalFile(path.relative_to(root).as_posix(), sha256_of(path)) for path in file.parts]
        masks = [OriginalFile(path.relative_to(root).as_posix(), sha256_of(path)) for path in (file.mask,) if path]
        for plane, sample in enumerate(own):
            self.images.put(first + plane, resize(stored.grey(plane, windows[drawn[plane]]), self.size)[None])
            if labels is not None:
                regions = numbered(labels[plane], self.labels)
                self.masks.put(first + plane, resize(regions, self.size, mask=True)[None])
                self.empty += not regions.any()
            origin = images[plane] if file.slices else images[0]
            mode = str(stored.values.dtype)
            self.origins.append(Origin(sample, stored.size[::-1], mode, file.class_name, origin, tuple(masks)))
        if how is not None:
            self._grade(stored, how)
        self.ids += own
        digests = [one.sha256 for one in (*images, *masks)]
        self.digest.update("\x1f".join([file.id, file.class_name or "", *digests, repr(windows), ""]).encode())
        self.files.append(_native(file, first, stored, windows, tuple(drawn), reading))

    def _grade(self, stored: Stored, how: Normalisation) -> None:
        window = window_of(stored, how)
        for plane in range(stored.planes):
            levels = normalised(stored, plane, how, window)
            layers = levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)
            small = np.stack([resize(layer, self.size) for layer in layers])
            self.graded.append(torch.from_numpy(small))

    def dataset(self, task: Task, names: Sequence[str]) -> Dataset:
        """The samples with their classes, or with the numbers of their labels, 0 or 1 where they are one foreground."""
        if task == "segmentation":
            data = self.images.dataset(self.masks, self.ids, task, 1)
        else:
            targets = torch.tensor([names.index(origin.class_name or "") for origin in self.origins])
            data = self.images.dataset(targets, self.ids, task, len(names))
        if not self.graded:
            return data
        return Graded(data, tuple(one.expand(data.channels, -1, -1) for one in self.graded))

    def notes(self) -> list[str]:
        return [f"{self.empty} of {self.count} slices have an empty mask"] if self.empty else []


def _usable(found: Sequence[MedicalFile], reading: Reading, bad: BadFiles) -> list[Looked]:
    """What is seen of the files that can be used; the others, and what shares a mask with them, go to ``bad``."""
    looks = [attempt(partial(_look, reading))(file) for file in found]
    for file, look in zip(found, looks, strict=True):
        if isinstance(look, UserError):
            bad.add(file.id, look)
    missing = {sample for sample, _ in bad.found}
    spoilt = {file.mask for file in found if file.id in missing and file.mask is not None}
    return [look for look in looks if not isinstance(look, UserError) and look.file.mask not in spoilt]


def _look(reading: Reading, file: MedicalFile) -> Looked:
    """Read it, for what is common to all. Raises UserError for what cannot be used."""
    if file.slices:
        file = replace(file, slices=series.ordered(file.slices))
    stored = _read(file, reading)
    labels = _labels(file, stored)
    values = frozenset() if labels is None else frozenset(int(one) for one in np.unique(labels) if one)
    return Looked(file, stored.values.shape[:3], stored.windows, str(stored.values.dtype), stored.spacing, values)


def _read(file: MedicalFile, reading: Reading) -> Stored:
    return formats.read(file.image, file.kind, file.slices, identified=reading.identified)


def _labels(file: MedicalFile, stored: Stored) -> Values | None:
    return None if file.mask is None else formats.read_labels(file.mask, file.parts, stored.values.shape[:3])


def _native(
    file: MedicalFile, first: int, stored: Stored, windows: tuple[Window, ...], drawn: tuple[int, ...], reading: Reading
) -> NativeFile:
    mask = file.mask
    return NativeFile(
        image=file.image,
        masks=() if mask is None else (mask,),
        name=f"{file.name}{file.suffix}",
        mask=None if mask is None or file.mask_name is None else f"{file.mask_name}{formats.suffix_of(mask)}",
        first=first,
        planes=stored.planes,
        windows=windows,
        kind=file.kind,
        labels=reading.labels,
        identified=reading.identified,
        raw=True,
        step=stored.step,
        slices=file.slices,
        drawn=drawn,
    )


def _notes(looked: Sequence[Looked], windows: Sequence[tuple[Window, ...]], count: int) -> list[str]:
    kinds = Counter(f"{one.word} of {one.dtype}, {one.shape[2]}x{one.shape[1]}{one.apart}" for one in looked)
    words = [f"{number} {kind}" for kind, number in kinds.most_common()]
    used = sorted({f"{one.name} ({one.low:g} to {one.high:g})" for own in windows for one in own})
    return [f"{count} slices: {_some(words, '; ')}", f"windows: {_some(used, ', ')}"]


def _some(words: Sequence[str], between: str) -> str:
    return between.join(words[:_SHOWN]) + (f"{between}and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
