"""The report's figures as PNG files: bars and learning curves, and what all figures have in common.

Each is five inches wide, so that its text can be read on a telephone and two fit beside each other on a desk.
:mod:`medveil.launch.report.comparison` draws the one that is wider.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medveil.launch.report.labels import Labels, wrapped
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.summary import Row, Stat, attack_text, metric_text
from medveil.launch.report.worst import highlighted

WIDTH = 5.0
"""Inches, of every figure."""

INK, MUTED, GRID = "#1f2937", "#5b6675", "#e5e9ef"
CLEAN, PROTECTED = "#a9b6c8", "#0f766e"
VARIANTS = 4
"""The most settings of one protector of which there are curves and sheets."""

TITLE, LINE = 44, 78
"""Characters that fit into a title, and into a line of text across a figure."""

DASHED = (0, (2, 1.2))
"""The line style of what was trained on originals."""

STYLE: Any = {
    "text.parse_math": False,  # a name with a dollar sign is a name
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#c5cdd8",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def chart(title: str, height: float, pad: float | None = None) -> tuple[Figure, Axes]:
    """A figure of one plot under ``title``, of ``height`` inches but for the further lines of that.

    ``pad``: points between the two, where they are not the usual ones.
    """
    title = wrapped(title, TITLE)
    figure = Figure(figsize=(WIDTH, height + 0.17 * title.count("\n")), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, pad=pad)
    return figure, axes


def draw_bars_and_curves(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """Bars for each exploiter, and learning curves for each attack on it."""
    pictures = []
    labels = Labels.of(rows)
    trained = {row.exploiter for row in rows if row.scores and row.exploiter}
    for exploiter in sorted(trained, key=str):
        if exploiter.part != "all" or exploiter.authorised is not None:
            continue  # drawn by medveil.launch.report.mixed and medveil.launch.report.authorised
        audited = highlighted([row for row in rows if row.exploiter == exploiter and row.scores])
        pictures.append(_bars(audited, labels, folder))
        for attack in dict.fromkeys(row.attack for row in audited):
            same = [row for row in audited if row.attack == attack]
            if any(curve(row, side)[0].size for row in same for side in ("clean", "protected")):
                pictures.append(_curves(same, labels, folder))
    return pictures


def _bars(rows: Sequence[Row], labels: Labels, folder: Path) -> Picture:
    """Clean beside protected for every row of one data set and exploiter."""
    data, exploiter, metric = rows[0].data, rows[0].exploiter, str(rows[0].headline)
    name = metric_text(metric)
    texts = [wrapped(labels.row(row), LINE) for row in rows]
    # Inches: two bars of 0.16, and above them the text.
    heights = [0.62 + 0.16 * text.count("\n") for text in texts]
    ends = np.cumsum(heights)
    total = float(ends[-1])
    figure, axes = chart(f"{data} · {labels.exploiter(rows[0])}", 1.15 + total, pad=24)
    for row, text, end in zip(rows, texts, ends, strict=True):
        score = row.scores[metric]
        axes.text(0, end - 0.38, text, va="bottom", fontsize=9, color=INK, linespacing=1.15)
        for offset, stat, colour in ((-0.28, score.clean, CLEAN), (-0.11, score.protected, PROTECTED)):
            if stat is None:
                continue
            axes.barh(end + offset, stat.mean, height=0.16, color=colour, xerr=stat.spread, ecolor=INK, capsize=2)
            tip = stat.mean + (stat.spread or 0)
            axes.text(tip + 1.2, end + offset, f"{stat.mean:.1f}", va="center", fontsize=8.5, color=INK)
    axes.set(xlim=(0, 109), ylim=(total, -0.02), xlabel=f"{name} on clean test images, percent", yticks=[])
    axes.set_xticks(range(0, 101, 20))
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True, color=GRID)
    axes.set_axisbelow(True)
    above = 1 + 0.16 / (total + 0.02)  # one distance from the bars, however many: axes coordinates grow with them
    for x, colour, text in ((0.0, CLEAN, "trained on originals"), (0.4, PROTECTED, "trained on protected")):
        axes.plot(x + 0.012, above, "s", color=colour, markersize=7, transform=axes.transAxes, clip_on=False)
        axes.text(x + 0.04, above, text, va="center", fontsize=8.5, color=MUTED, transform=axes.transAxes)
    said = "; ".join(
        f"{row.label}: {_said(score.clean)} on originals, {_said(score.protected)} on protected"
        for row, score in ((row, row.scores[metric]) for row in rows)
    )
    return save(
        figure,
        folder,
        f"bars-{data}-{exploiter}",
        data,
        "bars",
        f"{name} of {exploiter}, trained on originals and on protected images, tested on clean ones.",
        f"Bar chart of {name} in percent for {exploiter} on {data}. {said}.",
    )


def _said(stat: Stat | None) -> str:
    return "not measured" if stat is None else f"{stat.mean:.1f}"


def curve(row: Row, side: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Epochs [E] and percent [seeds, E] of the headline metric on clean test images, up to the shortest seed's last.

    ``side``: the exploiter trained on "clean" or on "protected" images. Both are empty where there is no curve.
    """
    metric = row.headline
    runs = []
    for cell in row.cells:
        outcome = cell.clean if side == "clean" else cell.protected
        points = [p for p in (outcome.curve if outcome else []) if metric in p and "epoch" in p]
        if points:
            runs.append([(p["epoch"], 100 * p[str(metric)]) for p in points])
    length = min(map(len, runs), default=0)
    epochs = np.array([p[0] for p in runs[0][:length]] if runs else [])
    return epochs, np.array([[p[1] for p in run[:length]] for run in runs])


@dataclass(frozen=True)
class Line:
    """A learning curve: of ``row``, from the exploiter of ``side`` ("clean" or "protected")."""

    label: str
    colour: str
    style: str | tuple[int, tuple[float, ...]]
    row: Row
    side: str = "protected"


def draw_curves(axes: Axes, lines: Sequence[Line], name: str, relative: bool = False) -> None:
    """``lines`` by epoch, with bands over the seeds; ``relative``: by the share of the training that is over, for sets
    of different sizes.
    """
    for line in lines:
        epochs, values = curve(line.row, line.side)
        if not epochs.size:
            continue
        epochs = 100 * epochs / epochs[-1] if relative else epochs
        mark = "o" if len(epochs) == 1 else None
        axes.plot(
            epochs,
            values.mean(0),
            linestyle=line.style,
            marker=mark,
            color=line.colour,
            label=line.label,
            linewidth=1.8,
        )
        if len(values) > 1:
            axes.fill_between(epochs, values.min(0), values.max(0), color=line.colour, alpha=0.13, linewidth=0)
    axes.set(xlabel="training, percent" if relative else "epoch", ylabel=f"{name}, percent", ylim=(0, 102))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(True, color=GRID)


def _curves(rows: Sequence[Row], labels: Labels, folder: Path) -> Picture:
    """Clean test score by epoch: the clean exploiter once, the protected one for every row."""
    data, exploiter, attack, metric = rows[0].data, rows[0].exploiter, rows[0].attack, str(rows[0].headline)
    name = metric_text(metric)
    lines: list[Line] = []
    clean = next((row for row in rows if curve(row, "clean")[0].size), None)
    if clean:
        lines.append(Line("originals", INK, DASHED, clean, "clean"))
    shown: dict[str, int] = {}
    for row in rows:
        shown[row.protector] = shown.get(row.protector, 0) + 1
        # "none" released the originals: its curve is theirs.
        if shown[row.protector] <= VARIANTS and not (clean and row.protector == "none"):
            label = wrapped(labels.protector(row), 38)
            lines.append(Line(label, labels.colour(row), labels.style(row), row))
    left = len(rows) - sum(min(count, VARIANTS) for count in shown.values())
    suffix = f" · {attack}" if attack_text(attack) else ""
    height = sum(
        max(line.label.count("\n") + 1 for line in pair) for pair in (lines[i : i + 2] for i in range(0, len(lines), 2))
    )
    figure, axes = chart(f"{data} · {labels.exploiter(rows[0])}{suffix}", 2.75 + 0.165 * height)
    draw_curves(axes, lines, name)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, handlelength=2.2)
    return save(
        figure,
        folder,
        f"curves-{data}-{exploiter}-{attack or 'none'}",
        data,
        "curves",
        f"{name} of {exploiter}{suffix} on clean test images while it trains; bands span the seeds."
        + (f" {left} more settings are in the tables." if left else ""),
        f"Learning curves of {exploiter} on {data}{suffix}: {name} on clean test images by epoch, trained on "
        + ", ".join(line.label.replace("\n", " ") for line in lines)
        + ".",
    )
