"""Protectors against attacks as a heat map: what a model reaches on clean images, whatever the thief does first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medveil.launch.report.figures import MUTED, STYLE, TITLE, WIDTH
from medveil.launch.report.labels import Labels, wrapped
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.summary import Row, Stat, metric_text
from medveil.launch.report.worst import attacks_of

FEWEST = 4
"""Attacks that make a heat map."""

_COLOURS = "cividis"
"""Of even lightness steps, and the same to colour-blind readers."""

_LINE, _COLUMN = 0.24, 0.62  # inches


@dataclass(frozen=True)
class Grid:
    """What a model reaches after each attack (line) on each release (column), by ``metric`` in percent.

    The first column is the originals, where any were trained on. ``values`` [attacks, columns]: NaN where nothing was
    measured. ``worst``: the highest of each column.
    """

    data: str
    exploiter: str
    title: str
    metric: str
    attacks: list[str]
    columns: list[str]
    values: NDArray[np.float64]
    worst: list[float]


def grids_of(rows: Sequence[Row], fewest: int = 2) -> list[Grid]:
    """One for each data set and exploiter with ``fewest`` attacks or more."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.headline is not None:
            groups.setdefault((row.data, row.exploiter), []).append(row)
    return [_grid(same) for same in groups.values() if len(attacks_of(same)) >= fewest]


def _grid(rows: Sequence[Row]) -> Grid:
    metric, labels, attacks = str(rows[0].headline), Labels.of(rows), attacks_of(rows)
    columns: dict[str, dict[str, Stat | None]] = {}
    for row in rows:
        score = row.scores[metric]
        if score.clean is not None:
            columns.setdefault("originals", {})[row.attack] = score.clean
        columns.setdefault(labels.protector(row), {})[row.attack] = score.protected
    names = [name for name in columns if name != "none" or "originals" not in columns]
    values = np.full((len(attacks), len(names)), np.nan)
    for j, name in enumerate(names):
        for i, attack in enumerate(attacks):
            stat = columns[name].get(attack)
            values[i, j] = np.nan if stat is None else stat.mean
    worst = [math.nan if np.isnan(column).all() else float(np.nanmax(column)) for column in values.T]
    title = f"{rows[0].data} · {labels.exploiter(rows[0])}"
    return Grid(rows[0].data, rows[0].exploiter_text, title, metric, attacks, names, values, worst)


def draw_heatmaps(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """One figure for each data set and exploiter with four attacks or more."""
    with mpl.rc_context(STYLE):
        return [_heatmap(grid, folder) for grid in grids_of(rows, FEWEST)]


def _heatmap(grid: Grid, folder: Path) -> Picture:
    names, attacks = grid.columns, grid.attacks
    values = np.vstack([grid.values, grid.worst])
    shown = metric_text(grid.metric)
    title = wrapped(grid.title, TITLE)
    heads = [wrapped(name, 26) for name in names]
    width = max(WIDTH, 2.0 + _COLUMN * len(names))
    longest = max(len(line) for head in heads for line in head.split("\n"))
    height = 0.8 + _LINE * len(values) + 0.17 * title.count("\n") + 0.05 * longest
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap=_COLOURS, vmin=0, vmax=100, aspect="auto")
    axes.axhline(len(attacks) - 0.5, color="white", linewidth=3)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            dark = value < 60
            weight = "bold" if i == len(attacks) else "normal"
            ink = "white" if dark else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8.5, color=ink, weight=weight)
    axes.set_yticks(range(len(values)), [*attacks, "worst case"], fontsize=8.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(names)), heads, fontsize=8.5, rotation=40, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, pad=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=24, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    said = "; ".join(f"{name}: {value:.1f}" for name, value in zip(names, grid.worst, strict=True))
    return save(
        figure,
        folder,
        f"attacks-{grid.data}-{grid.exploiter}",
        grid.data,
        "heatmap",
        f"{shown} of {grid.exploiter} on clean test images, percent: columns are what was trained on, lines "
        "the attack on it before. The last line is the highest of each column.",
        f"Heat map of {shown} in percent by attack and protector on {grid.data}. Worst cases: {said}.",
    )
