"""Sheets of original, protected and amplified noise as PNG files, and the images themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from medveil.errors import UserError
from medveil.launch.report.figures import MUTED, VARIANTS, WIDTH
from medveil.launch.report.labels import Labels, wrapped
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.run_pictures import read_pictures
from medveil.launch.report.summary import Row
from medveil.launch.results import Options

SHEET_SAMPLES = 3
"""The most samples that a sheet shows."""


@dataclass(frozen=True)
class Samples:
    """A few samples of a run, uint8 [K, H, W, C]; ``masks`` {0, 1} [K, H, W, 1] where there are any."""

    original: NDArray[np.uint8]
    protected: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None

    @property
    def noise(self) -> NDArray[np.int16]:
        return self.protected.astype(np.int16) - self.original


def draw_sheets(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """One for each release that kept images."""
    labels = Labels.of(rows)
    return [_sheet(row, samples, labels, folder) for row, samples in kept_samples(rows)]


def kept_samples(rows: Sequence[Row]) -> list[tuple[Row, Samples]]:
    """The images that the first cell of each release of one data set kept, of at most :data:`VARIANTS` settings of a
    protector.
    """
    chosen: dict[tuple[str, Options], tuple[Row, str]] = {}
    for row in rows:
        pictures = next((cell.pictures for cell in row.cells if cell.pictures), None)
        settings = sum(name == row.protector for name, _ in chosen)
        if pictures and row.protector != "none" and settings < VARIANTS:
            chosen.setdefault((row.protector, row.options), (row, pictures))
    return [(row, samples_of(Path(pictures))) for row, pictures in chosen.values()]


def amplified(noise: NDArray[np.int16]) -> tuple[NDArray[np.uint8], int, int]:
    """``noise`` on mid grey, as strong as fits; how many times as strong; and the largest change in grey levels.

    What exceeds half of the range is cut.
    """
    largest = int(np.abs(noise).max(initial=0))
    gain = max(1, 127 // largest) if largest else 1
    return (128 + gain * noise).clip(0, 255).astype(np.uint8), gain, largest


def _sheet(row: Row, samples: Samples, labels: Labels, folder: Path) -> Picture:
    original, protected = samples.original[:SHEET_SAMPLES], samples.protected[:SHEET_SAMPLES]
    noise, gain, largest = amplified(samples.noise[:SHEET_SAMPLES])
    columns = [("original", original), ("protected", protected), (f"noise × {gain}", noise)]
    label = " · ".join(part for part in (row.protector, str(row.options)) if part)
    return save(
        sheet(f"{row.data} · {labels.protector(row)}", columns, 11.5),
        folder,
        f"sheet-{row.data}-{row.protector}-{row.options}",
        row.data,
        "sheet",
        f"{label}: original, protected, and their difference {gain} times as strong on mid grey "
        f"(largest change {largest} grey levels of 255).",
        f"{len(original)} samples of {row.data} in three columns: original image, image protected by {label}, and the "
        f"noise amplified {gain} times.",
    )


def sheet(title: str, columns: Sequence[tuple[str, NDArray[np.uint8]]], fontsize: float) -> Figure:
    """``columns`` of images beside each other, uint8 [K, H, W, C] each, under their names in ``fontsize`` points."""
    count, height, width = columns[0][1].shape[:3]
    cell = (WIDTH - 0.2) / len(columns)
    title = wrapped(title, 46)
    figure = Figure(
        figsize=(WIDTH, 0.6 + 0.2 * title.count("\n") + count * (cell * height / width + 0.04)),
        layout=ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0),
    )
    grid = figure.subplots(count, len(columns), squeeze=False)
    for number, (name, images) in enumerate(columns):
        grid[0, number].set_title(name, fontsize=fontsize, fontweight="normal", loc="center", color=MUTED)
        for line, image in enumerate(images):
            grid[line, number].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            grid[line, number].set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def samples_of(path: Path) -> Samples:
    """The samples in the npz ``path``. Raises :class:`UserError` when it is none of a run."""
    found = read_pictures(path, {"original": 4, "protected": 4, "masks": 4})
    original, protected = found.get("original"), found.get("protected")
    if original is None or protected is None or original.shape != protected.shape:
        raise UserError(f"{path} holds no pictures of a run: remove it or run its cell again")
    return Samples(original, protected, found.get("masks"))
