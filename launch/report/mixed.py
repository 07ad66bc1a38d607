"""SALM's Figures 5 and 6: a set that is protected in part, seen through what a model learned from it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medveil.launch.report.figures import DASHED, GRID, INK, MUTED, TITLE, WIDTH, Line, chart, draw_curves
from medveil.launch.report.labels import Labels, wrapped
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.summary import Row, metric_text

PARTS = {"clean": "clean part alone", "protected": "protected part alone", "all": "the mix"}
_COLOURS = {"clean": "#2563a8", "protected": "#b4431c", "all": "#0f766e"}
CLASS_COLOURS = ["#0f766e", "#d97706", "#5b4bb3", "#b0276b", "#2563a8", "#84a51d", "#7a4a21", "#0891b2", "#64748b"]
_SHADES = "Greens"
_MOST_CLASSES = 20
"""Of a confusion matrix whose numbers can be read."""


def draw_mixed(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """What the rows hold of: curves of the mix and its parts, a t-SNE of the mix, confusion matrices."""
    pictures = []
    rows = [row for row in rows if row.scores]
    labels = Labels.of(rows)
    for row in rows:
        if _part(row) != "all":
            continue
        if parts := [one for one in rows if _is_part(one, row)]:
            pictures.append(_curves(row, parts, labels, folder))
        if (points := _points(row)) is not None:
            pictures.append(_embedding(row, points, labels, folder))
        if (marked := _protected_classes(row)) and (table := _confusion(row)) is not None:
            pictures.append(_matrix(row, table, marked, labels, folder))
    return pictures


def _is_part(one: Row, whole: Row) -> bool:
    """Whether ``one`` is an exploiter like that of ``whole`` on a part of the same release."""
    if one is whole or one.exploiter is None:
        return False
    alike = replace(one.exploiter, part="all") == whole.exploiter
    return alike and (one.protector, one.options, one.attack) == (whole.protector, whole.options, whole.attack)


def _part(row: Row) -> str:
    return "all" if row.exploiter is None else row.exploiter.part


def _title(row: Row, labels: Labels) -> str:
    return f"{row.data} · {labels.row(row)} · {row.model}"


def _curves(whole: Row, parts: Sequence[Row], labels: Labels, folder: Path) -> Picture:
    metric = str(whole.headline)
    name = metric_text(metric)
    lines = [Line("all of it, clean", INK, DASHED, whole, "clean")]
    for row in [*sorted(parts, key=_part), whole]:
        part = _part(row)
        lines.append(Line(PARTS[part], _COLOURS[part], "-", row))
    figure, axes = chart(_title(whole, labels), 3.2)
    draw_curves(axes, lines, name, relative=True)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, handlelength=2.2)
    return save(
        figure,
        folder,
        f"mix-{whole.data}-{whole.protector}-{whole.options}-{whole.exploiter_text}-{whole.attack}",
        whole.data,
        "curves",
        f"{name} of {whole.exploiter_text} on clean test images while it trains on a release of {whole.label}, and on "
        "its clean or protected part alone; bands span the seeds.",
        f"Learning curves on {whole.data}, {whole.label}: " + ", ".join(line.label for line in lines) + ".",
    )


def _points(row: Row) -> NDArray[np.float64] | None:
    """[K, 4] of the first seed that has them: x, y, class, protected."""
    found = next((c.protected.embedding for c in row.cells if c.protected and c.protected.embedding), None)
    return None if found is None else np.array(found)


def _embedding(row: Row, points: NDArray[np.float64], labels: Labels, folder: Path) -> Picture:
    """Clean and protected samples of one t-SNE side by side, coloured by class."""
    title = wrapped(_title(row, labels), TITLE)
    figure = Figure(figsize=(WIDTH, 3.15 + 0.17 * title.count("\n")), layout="constrained")
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    room = 0.05 * (high - low)
    classes = sorted({int(number) for number in points[:, 2]})
    counts = []
    sides: list[Axes] = list(figure.subplots(1, 2))
    for axes, protected, name in zip(sides, (0, 1), ("clean", "protected"), strict=True):
        chosen = points[points[:, 3] == protected]
        counts.append(f"{len(chosen)} {name}")
        for number in classes:
            x, y = chosen[chosen[:, 2] == number][:, :2].T
            colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
            axes.scatter(x, y, s=7, color=colour, alpha=0.75, linewidths=0, label=f"class {number}")
        axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        axes.set(xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_title(f"{name} samples", fontsize=9.5, fontweight="normal", color=MUTED)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    handles, names = sides[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower left", ncols=min(5, len(classes)), frameon=False, fontsize=8.5,
        markerscale=2, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return save(
        figure,
        folder,
        f"tsne-{row.data}-{row.protector}-{row.options}-{row.exploiter_text}-{row.attack}",
        row.data,
        "curves",
        f"t-SNE of the features before the last layer of {row.model}, trained on the release of {row.label}: its clean "
        "and its protected samples, in one plane, coloured by class.",
        f"Two panels of one t-SNE of {row.data}: {' and '.join(counts)} samples of {len(classes)} classes.",
    )


def _confusion(row: Row) -> NDArray[np.int64] | None:
    """Counts [classes, classes] summed over the seeds."""
    tables = [cell.protected.confusion for cell in row.cells if cell.protected and cell.protected.confusion]
    if not tables or len(tables[0]) > _MOST_CLASSES or any(len(table) != len(tables[0]) for table in tables):
        return None
    total: NDArray[np.int64] = np.sum([np.array(table) for table in tables], axis=0)
    return total


def _protected_classes(row: Row) -> list[int]:
    """Numbers in the confusion matrix, ascending; none where every class is protected."""
    return sorted({number for cell in row.cells if cell.protected for number in cell.protected.protected_classes})


def _matrix(row: Row, table: NDArray[np.int64], marked: Sequence[int], labels: Labels, folder: Path) -> Picture:
    """Rows in percent; the classes ``marked`` are in bold."""
    count = len(table)
    share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
    side = min(WIDTH - 0.7, 0.6 + 0.42 * count)
    figure, axes = chart(_title(row, labels), side + 0.85)
    axes.imshow(share, cmap=_SHADES, vmin=0, vmax=110)
    size = 9 if count <= 9 else 7 if count <= 12 else 5
    for true, line in enumerate(share):
        for taken, value in enumerate(line):
            if round(value):
                colour = "white" if value > 60 else INK
                axes.text(taken, true, f"{value:.0f}", ha="center", va="center", fontsize=size, color=colour)
    for ticks, axis in ((axes.get_yticklabels, axes.yaxis), (axes.get_xticklabels, axes.xaxis)):
        axis.set_ticks(range(count), [str(number) for number in range(count)])
        for number, text in enumerate(ticks()):
            if number in marked:
                text.set(color=_COLOURS["protected"], fontweight="bold")
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color=GRID, linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="class that the model takes it for", ylabel="true class")
    wrong = [f"class {number}: {share[number, number]:.0f}" for number in range(count)]
    named = ", ".join(map(str, marked))
    return save(
        figure,
        folder,
        f"confusion-{row.data}-{row.protector}-{row.options}-{row.exploiter_text}-{row.attack}",
        row.data,
        "curves",
        f"Clean test images of each class (row) in percent, by the class that {row.exploiter_text} takes them for; it "
        f"was trained on a release of which the classes {named} are protected (in bold).",
        f"Confusion matrix of {row.exploiter_text} on {row.data}, {row.label}. Percent right: {', '.join(wrong)}.",
    )
