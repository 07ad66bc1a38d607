"""UMed's Figure 3: what each protector adds to the same image, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from medveil.config import build
from medveil.launch.report.figures import INK, MUTED
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.sheets import Samples, samples_of
from medveil.launch.report.summary import Row
from medveil.umed import UMedConfig, maps

RIVALS = ["em", "tap", "lsp", "ar", "sep"]
"""In the order of the paper's columns."""

LINES = 2
"""The most images of one data set."""

SHOWN = 72
"""UMed's largest change is drawn as so many grey levels from mid grey; what exceeds 127 is cut there."""

_GENERATORS = ("$G_c$", "$G_t$")
"""UMed's two as the paper writes them, on the contour and in the texture; any other dollar sign is one."""

_WIDTH = 10.0
_GAP, _WIDE, _MARGIN, _HEAD = 0.05, 0.16, 0.05, 0.66  # inches


def draw_comparisons(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """One figure where UMed, with masks, and a rival kept the same images."""
    chosen = {name: found for name in [*RIVALS, "umed"] if (found := _kept(rows, name)) is not None}
    if "umed" not in chosen or len(chosen) < 2 or chosen["umed"][1].masks is None:
        return []
    row, umed = chosen.pop("umed")
    columns, gain = columns_of(umed, _band(row, umed.masks), {name: samples for name, (_, samples) in chosen.items()})
    return [_drawn(row, columns, gain, folder)] if len(columns[0][1]) else []


def columns_of(
    umed: Samples, band: NDArray[np.bool_], rivals: Mapping[str, Samples]
) -> tuple[list[tuple[str, NDArray[np.uint8]]], int]:
    """The columns of the figure, each a title and uint8 [L, H, W, C], and how many times as strong noise is in them.

    Original, noise of each of ``rivals``, UMed's noise on its contour ``band`` [K, H, W, 1] and in the texture, UMed's
    image; of the first images that all protectors kept.
    """
    places = [_places(umed.original, samples.original) for samples in rivals.values()]
    shared = [i for i in range(len(umed.original)) if all(i in place for place in places)][:LINES]
    noise, contour = umed.noise[shared], band[shared]
    gain = max(1, SHOWN // int(np.abs(noise).max(initial=1)))
    columns = [("original", umed.original[shared])]
    for (name, samples), place in zip(rivals.items(), places, strict=True):
        columns.append((name.upper(), _grey(samples.noise[[place[i] for i in shared]], gain)))
    columns += zip(_GENERATORS, (_grey(noise * contour, gain), _grey(noise * ~contour, gain)), strict=True)
    return [*columns, ("protected", umed.protected[shared])], gain


def _kept(rows: Sequence[Row], protector: str) -> tuple[Row, Samples] | None:
    """The row of ``protector`` with the fewest options that kept images, and these."""
    found = [
        (row, cell.pictures) for row in rows if row.protector == protector for cell in row.cells[:1] if cell.pictures
    ]
    if not found:
        return None
    row, path = min(found, key=lambda one: (len(one[0].options), str(one[0].options)))
    return row, samples_of(Path(path))


def _places(wanted: NDArray[np.uint8], among: NDArray[np.uint8]) -> dict[int, int]:
    """For each image of ``wanted`` that is in ``among``: where."""
    found = {image.tobytes(): place for place, image in enumerate(among)}
    return {i: found[image.tobytes()] for i, image in enumerate(wanted) if image.tobytes() in found}


def _band(row: Row, masks: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
    """UMed's contour band with the options of ``row``, [K, H, W, 1]."""
    assert masks is not None
    options = {
        name: value for name, value in row.options.items() if name in ("band", "band_side", "contour", "texture")
    }
    band = maps.band(build(UMedConfig, options, "umed"), torch.from_numpy(masks).permute(0, 3, 1, 2))
    found: NDArray[np.bool_] = band.permute(0, 2, 3, 1).numpy()
    return found


def _grey(noise: NDArray[np.int16], gain: int) -> NDArray[np.uint8]:
    return (128 + gain * noise).clip(0, 255).astype(np.uint8)


def _drawn(row: Row, columns: Sequence[tuple[str, NDArray[np.uint8]]], gain: int, folder: Path) -> Picture:
    count, height, width = columns[0][1].shape[:3]
    last = len(columns) - 1
    # A wider gap between images and noise, and between the rivals' noise and UMed's.
    gaps = [0.0, *(_WIDE if i in (1, last - 2, last) else _GAP for i in range(1, len(columns)))]
    side = (_WIDTH - 2 * _MARGIN - sum(gaps)) / len(columns)
    tall = side * height / width
    total = _HEAD + count * tall + (count - 1) * _GAP + _MARGIN
    figure = Figure(figsize=(_WIDTH, total))
    lefts = [_MARGIN + i * side + sum(gaps[: i + 1]) for i in range(len(columns))]
    for (title, images), left in zip(columns, lefts, strict=True):
        for line in range(count):
            bottom = _MARGIN + (count - 1 - line) * (tall + _GAP)
            axes: Axes = figure.add_axes((left / _WIDTH, bottom / total, side / _WIDTH, tall / total))
            axes.imshow(images[line].squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_axis_off()
        figure.text(
            (left + side / 2) / _WIDTH,
            1 - 0.6 / total,
            title,
            ha="center",
            va="baseline",
            color=MUTED,
            parse_math=title in _GENERATORS,
        )
    for first, end, text in ((1, last - 3, f"rivals' noise × {gain}"), (last - 2, last - 1, f"UMed's noise × {gain}")):
        ends = [lefts[first] / _WIDTH, (lefts[end] + side) / _WIDTH]
        rule = 1 - 0.38 / total
        figure.add_artist(Line2D(ends, [rule, rule], color="#c5cdd8", linewidth=0.8))
        figure.text(sum(ends) / 2, 1 - 0.31 / total, text, ha="center", va="baseline", color=INK)
    figure.text(_MARGIN / _WIDTH, 1 - 0.31 / total, row.data, ha="left", va="baseline", fontsize=12, fontweight="bold")
    names = ", ".join(title for title, _ in columns[1:-3])
    return save(
        figure,
        folder,
        f"comparison-{row.data}",
        row.data,
        "comparison",
        f"What each protector adds, {gain} times as strong on mid grey and cut beyond {127 // gain} levels: {names}, "
        "UMed on the contour (G_c) and in the texture (G_t); then UMed's image.",
        f"{count} images of {row.data} in {len(columns)} columns: original, noise of {names}, UMed's noise on the "
        "contour and in the texture, and the image that UMed releases.",
    )
