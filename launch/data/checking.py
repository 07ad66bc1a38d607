"""Every file of a folder looked at, and all that is wrong said in one go; opening a data set stops at the first."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data.images import Decoded, decoding, read_image, read_mask
from medveil.launch.data.layout import MASK_NAME
from medveil.launch.data.listing import images_under
from medveil.launch.data.patient_names import sign_of_patient

HASH_SIDE = 16
"""A perceptual hash has the square of it in bits."""

ALIKE = 20
"""Bits in which the hashes of near-duplicates differ at most. On 150 endoscopies, 150 chest X-rays and 8 ultrasounds
different images differed in 50 and more, an image from its own JPEG of quality 50 or its copy at 90% in 6 at most."""


@dataclass
class Findings:
    """What the image files of a folder are. ``refused``: why each bad file would be refused, one line each.

    ``alike``: near-duplicates. ``telling``: why the names of some may be a patient's. ``odd``: the fewer of coloured
    and grey images, where there are both; ``odd_kind``: what they are.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    depths: Counter[str] = field(default_factory=Counter)
    refused: dict[Path, str] = field(default_factory=dict)
    alike: list[tuple[Path, Path]] = field(default_factory=list)
    telling: dict[Path, str] = field(default_factory=dict)
    odd: list[Path] = field(default_factory=list)
    odd_kind: str = ""


def look_through(root: Path) -> Findings:
    """Read every image and mask under ``root``."""
    found = Findings()
    files = images_under(root)
    masks = {path for path in files if path.parent == root / "masks" or MASK_NAME.fullmatch(path.stem)}
    with decoding(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = dict(zip(files, pool.map(lambda path: _look(path, path in masks), files), strict=True))
    hashes: dict[Path, npt.NDArray[np.bool_]] = {}
    for path, look in looks.items():
        if look.wrong is not None:
            found.refused[path] = look.wrong
        if path not in masks:
            found.depths[look.depth] += 1
            if look.size is not None:
                found.sizes[look.size] += 1
            if look.bits is not None:
                hashes[path] = look.bits
            if (sign := sign_of_patient(path.stem)) is not None:
                found.telling[path] = sign
    _check_pairs(root, looks, masks, found.refused)
    found.alike = _near_duplicates(hashes)
    grey, coloured = ([p for p in hashes if looks[p].coloured == colour] for colour in (False, True))
    kinds = (coloured, "coloured images among grey ones"), (grey, "grey images among coloured ones")
    found.odd, found.odd_kind = min(kinds, key=lambda kind: len(kind[0]))
    return found


@dataclass(frozen=True)
class _Look:
    depth: str
    size: tuple[int, int] | None = None
    bits: Any = None
    wrong: str | None = None
    orientation: int = 1
    coloured: bool = False


def _look(path: Path, mask: bool) -> _Look:
    try:
        decoded: Decoded = read_mask(path) if mask else read_image(path)
    except UserError as error:
        return _Look(_depth_of(path), wrong=str(error))
    if mask:
        return _Look("8 bits", decoded.size)
    return _Look(
        _depth(decoded.mode),
        decoded.size,
        imagehash.phash(Image.fromarray(decoded.pixels), HASH_SIDE).hash,
        None,
        decoded.orientation,
        decoded.pixels.ndim == 3,
    )


def _depth(mode: str) -> str:
    return "16 or more bits" if mode.startswith(("I", "F")) else "1 bit" if mode == "1" else "8 bits"


def _depth_of(path: Path) -> str:
    """Of a file that is refused: its header may say."""
    try:
        with Image.open(path) as image:
            deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
            return "16 or more bits" if deep else _depth(image.mode)
    except Exception:  # whatever a decoder raises for bytes that are not what they seem
        return "unreadable"


def _check_pairs(root: Path, looks: dict[Path, _Look], masks: set[Path], refused: dict[Path, str]) -> None:
    """Add images without a mask, masks without an image, and masks of another size than their image's."""
    if not masks:
        return
    images = {path.stem: path for path in looks if path not in masks}
    owned: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(masks):
        suffixed = MASK_NAME.fullmatch(path.stem)
        owner = path.stem if path.stem in images or suffixed is None else suffixed[1]
        owned[owner].append(path)
        if owner not in images:
            refused.setdefault(path, f"{path} has no image called {owner!r}: add the image or remove the mask")
    for stem, path in images.items():
        if stem not in owned:
            refused.setdefault(path, f"{path} has no mask: add one or remove the image")
        size = looks[path].size
        stored = size[::-1] if size is not None and looks[path].orientation >= 5 else size
        for mask in owned.get(stem, ()):
            theirs = looks[mask].size
            if size is not None and theirs is not None and theirs not in (size, stored):
                sizes = f"{theirs[0]}x{theirs[1]} and its image {size[0]}x{size[1]}"
                refused.setdefault(mask, f"{mask} is {sizes} pixels: give a mask of the image's size")


def _near_duplicates(hashes: dict[Path, npt.NDArray[np.bool_]]) -> list[tuple[Path, Path]]:
    paths: Sequence[Path] = list(hashes)
    if len(paths) < 2:
        return []
    bits = np.packbits(np.stack([hashes[path].ravel() for path in paths]), axis=1)
    ones = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
    found = []
    for i in range(len(paths) - 1):
        distances = ones[bits[i + 1 :] ^ bits[i]].sum(axis=1)
        for j in np.flatnonzero(distances <= ALIKE):
            found.append((paths[i], paths[i + 1 + int(j)]))
    return found
