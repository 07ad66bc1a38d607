"""SALM's Figures 3 and 9: what an authorised user's segmentation model draws on original and on released images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medveil.errors import UserError
from medveil.launch.report.figures import VARIANTS
from medveil.launch.report.labels import Labels
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.run_pictures import read_pictures
from medveil.launch.report.sheets import SHEET_SAMPLES, sheet
from medveil.launch.report.summary import Row

_TINT = np.array([217, 119, 6])
_DIFFERENT = np.array([219, 39, 119])
_OPACITY = 0.45
_KEPT = {"original": 4, "protected": 4, "on_original": 3, "on_protected": 3}
Images = Mapping[str, NDArray[np.uint8]]


def draw_authorised(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """A sheet for each release that an authorised user's model was run on, at most four of one protector."""
    labels = Labels.of(rows)
    return [_sheet(row, images, labels, folder) for row, images in seen_by_users(rows)]


def seen_by_users(rows: Sequence[Row]) -> list[tuple[Row, Images]]:
    """What is drawn of each of them, of ``rows`` of one data set. Raises UserError for a file that is none of a run."""
    found = []
    count: Counter[str] = Counter()
    for row in rows:
        place = next((c.protected.pictures for c in row.cells if c.protected and c.protected.pictures), None)
        if row.exploiter is None or row.exploiter.authorised is None or not place:
            continue
        count[row.protector] += 1
        if count[row.protector] <= VARIANTS and (images := _read(Path(place))):
            found.append((row, images))
    return found


def _read(path: Path) -> Images:
    """Nothing where the release is its original."""
    images = {name: array[:SHEET_SAMPLES] for name, array in read_pictures(path, _KEPT).items()}
    if images and set(images) != set(_KEPT):
        raise UserError(f"{path} holds no pictures of a run: remove it or run its cell again")
    return images


def _sheet(row: Row, images: Images, labels: Labels, folder: Path) -> Picture:
    original, protected = images["original"], images["protected"]
    on_original, on_protected = images["on_original"].astype(bool), images["on_protected"].astype(bool)
    columns = [
        ("original", _colour(original)),
        ("protected", _colour(protected)),
        ("on original", _tinted(original, on_original, np.zeros_like(on_original))),
        ("on protected", _tinted(protected, on_protected, on_original != on_protected)),
    ]
    score = row.scores.get("differing_pixels")
    share = None if score is None else score.protected
    said = "" if share is None else f" Over all images {share.mean:.2f}% of the pixels differ."
    trained = row.exploiter.authorised if row.exploiter else None
    return save(
        sheet(f"{row.data} · {labels.protector(row)} · {row.model}", columns, 10.5),
        folder,
        f"authorised-{row.data}-{row.protector}-{row.options}-{row.exploiter_text}",
        row.data,
        "authorised",
        f"What a segmentation model, trained on clean images of {trained}, draws on the originals and on the images "
        f"of {row.label}; pixels that it decides differently are pink.{said}",
        f"{len(original)} samples of {row.data} in four columns: original, protected by {row.label}, and the region "
        f"that a segmentation model draws on each.{said}",
    )


def _colour(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[K, H, W, 3] of grey or colour [K, H, W, C]."""
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def _tinted(images: NDArray[np.uint8], region: NDArray[np.bool_], different: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """``images`` with ``region`` [K, H, W] in colour, and in another where it is ``different``."""
    out = _colour(images).astype(np.float64)
    out[region] = (1 - _OPACITY) * out[region] + _OPACITY * _TINT
    out[different] = _DIFFERENT
    found: NDArray[np.uint8] = out.round().astype(np.uint8)
    return found
