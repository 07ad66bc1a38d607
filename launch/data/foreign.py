"""Images that somebody else protected, paired by name with the data set that they were made from."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from medveil.dataset import ArrayDataset, Dataset, Subset
from medveil.errors import UserError
from medveil.launch.data.images import decoding, read_image, resize
from medveil.launch.data.layout import MASK_NAME
from medveil.launch.data.listing import images_under
from medveil.launch.data.opening import Opener
from medveil.launch.data.source import Source
from medveil.runtime import batches

_MASKS = "masks"


def open_foreign(folder: Path, original: str, size: int | None, opener: Opener) -> Source:
    """The images in ``folder``, at any depth, or in an npz, with the ids and the targets of ``original``.

    Each is paired by its path without suffix, or by its name alone, with an id of ``original``. ``size``: the side that
    both are resized to; None: the images must have one square size, and the originals are resized to that.
    Raises UserError for an image that does not pair, by name or by shape, and where two pair with one original.
    """
    if folder.suffix == ".npz" or any(folder.glob("*.npz")):
        return _npz(folder, opener.again(original, None), opener)
    if not folder.exists():
        raise UserError(f"{folder} does not exist: name a release, or a folder of images")
    files = _files(folder)
    if not files:
        raise UserError(f"{folder} holds no PNG, JPEG, TIFF or BMP images: there is nothing to audit")
    with decoding():
        sizes = {path: read_image(path).size for path in files}
    side = size if size is not None else _one_side(sizes, folder)
    source = opener.again(original, side)
    pairs = _paired(files, folder, source)
    for path, index in pairs.items():
        width, height = source.origin(index).size
        if sizes[path] not in ((width, height), (side, side)) and _ratio(sizes[path]) != _ratio((width, height)):
            theirs = "x".join(map(str, sizes[path]))
            raise UserError(f"{path} is {theirs} and its original {width}x{height}: they do not pair")
    order = sorted(pairs, key=lambda path: pairs[path])
    images, digest = [], hashlib.sha256(source.fingerprint.encode())
    with decoding():
        for path in order:
            decoded = read_image(path)
            digest.update(decoded.sha256.encode())
            images.append(_formed(resize(decoded.pixels, (side, side)), source.data.channels, path))
    return _with_targets(
        torch.from_numpy(np.stack(images)), source, [pairs[path] for path in order], folder, digest.hexdigest()
    )


def _npz(path: Path, original: Source, opener: Opener) -> Source:
    theirs = opener.again(str(path), None)
    index = {sample: i for i, sample in enumerate(original.data.ids)}
    for sample in theirs.data.ids:
        if sample not in index:
            raise UserError(f"{path} has {sample}, which {original.spec} has not: they do not pair")
    if (theirs.data.channels, theirs.data.size) != (original.data.channels, original.data.size):
        raise UserError(f"the images of {path} have another shape than those of {original.spec}: they do not pair")
    images = [theirs.data.read(some).images for some in batches(range(len(theirs.data)), 256)]
    chosen = [index[sample] for sample in theirs.data.ids]
    return _with_targets(torch.cat(images), original, chosen, path, theirs.fingerprint)


def _with_targets(images: torch.Tensor, source: Source, chosen: list[int], path: Path, fingerprint: str) -> Source:
    theirs: Dataset = Subset(source.data, chosen)
    targets = torch.cat([theirs.read(some).targets for some in batches(range(len(theirs)), 256)])
    data = ArrayDataset(images, targets, list(theirs.ids), source.data.task, source.data.num_classes)
    return Source(
        spec=str(path),
        name=path.resolve().stem,
        kind=source.kind,
        data=data,
        test=None,
        class_names=source.class_names,
        notes=[],
        fingerprint=fingerprint,
    )


def _files(folder: Path) -> list[Path]:
    """The images in ``folder``; masks are passed over."""
    return [
        path
        for path in images_under(folder)
        if _MASKS not in path.relative_to(folder).parts[:-1] and not MASK_NAME.fullmatch(path.stem)
    ]


def _paired(files: list[Path], folder: Path, source: Source) -> dict[Path, int]:
    """The index in ``source.data`` of the original of each file."""
    ids = {sample: i for i, sample in enumerate(source.data.ids)}
    names: dict[str, int | None] = {}
    for i in ids.values():
        stem = Path(source.origin(i).name).stem
        names[stem] = i if stem not in names else None  # a name that several have tells nothing
    pairs: dict[Path, int] = {}
    owners: dict[int, Path] = {}
    missing = []
    for path in files:
        inside = path.relative_to(folder).with_suffix("")
        whole = inside.as_posix().removeprefix("images/")
        index = ids.get(whole, names.get(inside.name))
        if index is None:
            missing.append(path)
        elif index in owners:
            raise UserError(f"{owners[index]} and {path} both pair with {source.data.ids[index]!r}: remove one")
        else:
            pairs[path] = index
            owners[index] = path
    if missing:
        more = f" (nor have {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]} has no original of its name in {source.spec}{more}: remove it, or name the data")
    return pairs


def _one_side(sizes: dict[Path, tuple[int, int]], folder: Path) -> int:
    found = set(sizes.values())
    width, height = next(iter(found))
    if len(found) > 1 or width != height:
        raise UserError(f"the images of {folder} are not all of one square size: give --size, the side to resize to")
    return width


def _ratio(size: tuple[int, int]) -> float:
    """Width over height, to a hundredth."""
    return round(size[0] / size[1], 2)


def _formed(pixels: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """uint8 [channels, H, W]."""
    if pixels.ndim == 2:
        return np.repeat(pixels[None], channels, axis=0)
    if channels == 1:
        raise UserError(f"{path} is coloured and its original grey: they do not pair")
    return pixels.transpose(2, 0, 1)
