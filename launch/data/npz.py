"""MedMNIST's npz files: read part by part, without pickles, never resized."""

import hashlib
import math
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from medveil.dataset import Dataset, Task
from medveil.errors import UserError
from medveil.launch.data import store
from medveil.launch.data.cache import Entry, Kept, entry
from medveil.launch.data.images import MAX_PIXELS
from medveil.launch.data.medmnist_sets import registered
from medveil.launch.data.npz_arrays import DAMAGED, Array, Header, header_of, members, take
from medveil.launch.data.source import MAX_CLASSES, Source
from medveil.launch.data.store import MappedDataset, PixelStore
from medveil.launch.errors import FULL


def open_npz(
    path: Path,
    spec: str,
    *,
    size: int | None = None,
    splits: tuple[str, ...] = ("train",),
    cache: Path | None = None,
) -> Source:
    """The npz at ``path``: ``splits`` are to be protected; the test split, if not among them, is the test part.

    Images uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3]; labels whole numbers [N], [N, 1] or [N, L]. Ids: "train/12".
    Volumes [N, D, H, W] are cut into slices, which have the labels of their volume: "train/12/0003".
    ``cache``: where images that exceed memory are unpacked to, and stay; None: to files that vanish.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _open(archive, path, spec, size, splits, cache)
    except UserError:
        raise
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): it is damaged or no npz; fetch or write it again") from None


def _open(
    archive: zipfile.ZipFile, path: Path, spec: str, size: int | None, splits: tuple[str, ...], cache: Path | None
) -> Source:
    headers = {name: header_of(archive, name, path) for name in members(archive, path)}
    _check_splits(headers, path, splits)
    test_splits = ("test",) if "test" in _splits(headers) and "test" not in splits else ()
    planes, height, width = _check_images(headers, path, size)
    labels = {split: _labels(archive, split, headers, path) for split in _splits(headers)}
    task, num_classes, class_names = _task(path, labels)

    parts = {"data": splits, "test": test_splits} if test_splits else {"data": splits}
    ids = {
        name: [one for split in part for one in _ids(split, len(labels[split]), planes)] for name, part in parts.items()
    }
    targets = {
        name: torch.cat([_targets(labels[split], task) for split in part]).repeat_interleave(planes, 0)
        for name, part in parts.items()
    }
    large = any(math.prod(headers[f"{s}_images"].shape) > store.RAM_BUDGET for part in parts.values() for s in part)
    datasets: dict[str, Dataset]
    with entry(cache, path, ",".join(splits)) if large and cache is not None else nullcontext() as cached:
        found = None if cached is None else cached.read()
        mapped = {} if cached is None else {name: cached.open(name, len(ids[name]), (height, width)) for name in parts}
        if found is not None and None not in mapped.values():
            datasets = {
                name: MappedDataset(pixels, targets[name], ids[name], task, num_classes)
                for name, pixels in mapped.items()
                if pixels is not None
            }
            fingerprint = found.fingerprint
        else:
            stores, fingerprint = _unpack(archive, headers, parts, (planes, height, width), cached)
            datasets = {name: stores[name].dataset(targets[name], ids[name], task, num_classes) for name in parts}
            if cached is not None:
                cached.keep(Kept(fingerprint, str(path)))

    data = datasets["data"]
    notes = []
    if registered(path).get("task") == "ordinal-regression":
        notes.append(f"the classes of {path.stem} are grades in order: they are protected and trained as classes")
    if planes > 1:
        notes.append(f"{path.stem} holds volumes of {planes} slices of {width}x{height}: they are protected by slices")
    if data.channels == 1 and headers[f"{splits[0]}_images"].shape[3:] == (3,):
        notes.append(f"the three channels of every image in {path.name} are equal: read as grey")
    return Source(
        spec=spec,
        name=path.stem,
        kind="npz",
        data=data,
        test=datasets.get("test"),
        class_names=class_names,
        notes=notes,
        fingerprint=fingerprint,
        npz_path=path,
        planes=planes,
    )


def _unpack(
    archive: zipfile.ZipFile,
    headers: dict[str, Header],
    parts: dict[str, tuple[str, ...]],
    size: tuple[int, int, int],
    cached: Entry | None,
) -> tuple[dict[str, PixelStore], str]:
    """The images of each part, unpacked in one pass over the file, and its fingerprint. ``size``: slices of each of
    its volumes (of images 1), height, width.
    """
    stores, places = {}, {}
    planes, height, width = size
    for name, part in parts.items():
        counts = [headers[f"{split}_images"].shape[0] * planes for split in part]
        stores[name] = PixelStore(sum(counts), height, width, path=None if cached is None else cached.path(name))
        for split, start in zip(part, np.cumsum([0, *counts]).tolist(), strict=False):
            places[split] = stores[name], start
    fingerprint = hashlib.sha256()
    for name in sorted(headers):
        split = name.removesuffix("_images") if name.endswith("_images") else ""
        into, start = places.get(split, (None, 0))
        take(archive, name, headers[name], fingerprint, into, start, planes)
    if len({one.channels for one in stores.values()}) > 1:
        for one in stores.values():
            one.widen()
    return stores, fingerprint.hexdigest()


def _splits(headers: dict[str, Header]) -> list[str]:
    return [name.removesuffix("_images") for name in headers if name.endswith("_images")]


def _check_splits(headers: dict[str, Header], path: Path, splits: tuple[str, ...]) -> None:
    known = _splits(headers)
    if not known:
        held = ", ".join(headers) or "nothing"
        raise UserError(f"{path} is no MedMNIST npz: it needs train_images and train_labels, and holds {held}")
    if not splits or len(set(splits)) != len(splits):
        raise UserError(
            f"splits {','.join(splits)!r} must name each of {', '.join(known)} at most once, and at least one"
        )
    for split in splits:
        if split not in known:
            raise UserError(f"{path} has no split {split!r}: choose from {', '.join(known)}")
    for split in known:
        if f"{split}_labels" not in headers:
            raise UserError(f"{path} has {split}_images but no {split}_labels: add them")


def _ids(split: str, count: int, planes: int) -> list[str]:
    if planes == 1:
        return [f"{split}/{i}" for i in range(count)]
    return [f"{split}/{i}/{plane:04d}" for i in range(count) for plane in range(planes)]


def _check_images(headers: dict[str, Header], path: Path, size: int | None) -> tuple[int, int, int]:
    """Slices (1 of images), height and width, the same in every split."""
    sides = set()
    for split in _splits(headers):
        header = headers[f"{split}_images"]
        name = f"{path}: {split}_images"
        if header.dtype != np.uint8:
            raise UserError(f"{name} is {header.dtype}: MedMNIST images are uint8; convert them first")
        if len(header.shape) not in (3, 4):
            raise UserError(
                f"{name} has shape {header.shape}: [N, H, W], [N, H, W, 3] or volumes [N, D, H, W] are read"
            )
        if 0 in header.shape:
            raise UserError(f"{name} is empty: there is nothing to protect")
        volumes = len(header.shape) == 4 and header.shape[3] not in (1, 3)
        sides.add(header.shape[1:] if volumes else (1, *header.shape[1:3]))
    if len(sides) > 1:
        raise UserError(f"{path} has splits of different image sizes ({sorted(sides)}): give one size a file")
    planes, height, width = sides.pop()
    if height * width > MAX_PIXELS or min(height, width) < 1:
        raise UserError(f"{path} has images of {width}x{height} pixels: at most {MAX_PIXELS // 10**6} million are read")
    if size not in (None, height) or size not in (None, width):
        raise UserError(f"{path} holds {width}x{height} images and an npz is never resized: leave out --size {size}")
    return planes, height, width


def _labels(archive: zipfile.ZipFile, split: str, headers: dict[str, Header], path: Path) -> Array:
    """int64 [N, L]."""
    name = f"{split}_labels"
    header, images = headers[name], headers[f"{split}_images"].shape[0]
    if header.dtype.kind not in "uib":
        raise UserError(f"{path}: {name} is {header.dtype}: labels must be whole numbers")
    if len(header.shape) not in (1, 2) or header.shape[0] != images or 0 in header.shape:
        raise UserError(f"{path}: {name} has shape {header.shape} for {images} images: [N, 1] or [N, L] is needed")
    if math.prod(header.shape[1:]) > MAX_CLASSES:
        raise UserError(f"{path}: {name} has {header.shape[1]} labels an image: at most {MAX_CLASSES} are read")
    with archive.open(f"{name}.npy") as file:
        labels = npy.read_array(file, allow_pickle=False)
    if header.dtype == np.uint64 and labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{path}: {name} is out of range: labels count from 0")
    return labels.reshape(images, -1).astype(np.int64)


def _task(path: Path, labels: dict[str, Array]) -> tuple[Task, int, list[str] | None]:
    """Task, class (or label) count and names: MedMNIST's own when the file bears its name, else from the labels."""
    widths = {array.shape[1] for array in labels.values()}
    if len(widths) > 1:
        raise UserError(f"{path} has splits with different numbers of labels ({sorted(widths)}): give one number")
    width = widths.pop()
    info = registered(path)
    names = [info["label"][str(i)] for i in range(len(info["label"]))] if info else None
    multilabel = width > 1
    if info and names:
        expected = len(names) if info["task"].startswith("multi-label") else 1
        if width != expected:
            known = f"{width} labels an image where {info['python_class']} has {expected}"
            raise UserError(f"{path} has {known}: rename the file if it is another set")
    count = width if multilabel else len(names) if names else 1 + max(int(array.max()) for array in labels.values())
    limit = 2 if multilabel else count
    for split, array in labels.items():
        bad = np.argwhere((array < 0) | (array >= limit))
        if len(bad):
            row, column = bad[0].tolist()
            raise UserError(
                f"{path}: {split}_labels[{row}] is {array[row, column]}, out of range: labels are 0 to {limit - 1}"
            )
    if count > MAX_CLASSES:
        raise UserError(f"{path} has {count} {'labels' if multilabel else 'classes'}: at most {MAX_CLASSES} are read")
    if count < 2:
        raise UserError(f"{path} has one class only: there is nothing to classify")
    return "multilabel" if multilabel else "classification", count, names


def _targets(labels: Array, task: Task) -> Tensor:
    """int64 [N] or uint8 [N, L]."""
    return torch.from_numpy(labels.astype(np.uint8) if task == "multilabel" else labels[:, 0].copy())
