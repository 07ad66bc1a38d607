"""The frontier of each protector: what it leaves a model in the worst case, against how well the noise is hidden."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from medveil.launch.report.cards import Card, cards_of
from medveil.launch.report.figures import DASHED, GRID, INK, MUTED, chart
from medveil.launch.report.labels import Labels
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.summary import Row, Stat, metric_text

FEWEST = 2
"""Strengths of one protector that make a frontier."""

MARKERS = "osD^vPX*"
"""Of the protectors in their order: their points are told apart without colours."""


@dataclass(frozen=True)
class Point:
    """A release: its PSNR in dB, and the worst case in percent."""

    psnr: float
    reached: Stat
    card: Card


def frontiers_of(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """The points of each protector of one data set, by PSNR; nothing where none was tried with several strengths."""
    lines: dict[str, list[Point]] = {}
    for card in cards_of([row for row in rows if row.scores]):
        if card.reached is not None and card.row.psnr is not None and isfinite(card.row.psnr.mean):
            lines.setdefault(card.row.protector, []).append(Point(card.row.psnr.mean, card.reached, card))
    several = any(len({round(one.psnr, 2) for one in line}) >= FEWEST for line in lines.values())
    return {name: sorted(line, key=lambda one: one.psnr) for name, line in lines.items()} if several else {}


def draw_frontiers(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """One figure where a protector was tried with several strengths."""
    lines = frontiers_of(rows)
    return [_drawn(lines, Labels.of(rows), folder)] if lines else []


def _drawn(lines: dict[str, list[Point]], labels: Labels, folder: Path) -> Picture:
    card = next(iter(lines.values()))[0].card
    row, name = card.row, metric_text(card.metric)
    attacks = max(one.card.attacks for line in lines.values() for one in line)
    figure, axes = chart(f"{row.data} · {labels.exploiter(row)}", 3.7 + 0.1 * len(lines))
    clean = next((one.card.clean for line in lines.values() for one in line if one.card.clean is not None), None)
    if clean is not None:
        axes.axhline(clean.mean, linestyle=DASHED, color=INK, linewidth=1.4, label="originals")
    said = []
    for number, (protector, line) in enumerate(lines.items()):
        _line(axes, line, labels, MARKERS[number % len(MARKERS)])
        points = ", ".join(f"{one.reached.mean:.1f} at {one.psnr:.1f} dB" for one in line)
        said.append(f"{protector}: {points}")
    worst = "highest of all attacks" if attacks > 1 else "without an attack"
    axes.set(xlabel="PSNR, dB: further right, harder to see", ylabel=f"{name}, percent, {worst}")
    axes.margins(x=0.14, y=0.16)
    axes.grid(True, color=GRID)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8.5, handlelength=2.4)
    case = f"the worst case of {attacks} attacks" if attacks > 1 else "without an attack"
    return save(
        figure,
        folder,
        f"frontier-{row.data}-{row.exploiter_text}",
        row.data,
        "frontier",
        f"{name} of {row.exploiter_text} on clean test images, {case}, against the PSNR of the release, a point for "
        "each setting; lines up and down are a standard deviation over the seeds. The lower and the further right, the "
        "better for the owner.",
        f"{name} in percent against PSNR on {row.data}, {case}. {'; '.join(said)}.",
    )


def _line(axes: Axes, line: Sequence[Point], labels: Labels, marker: str) -> None:
    row = line[0].card.row
    axes.errorbar(
        [one.psnr for one in line],
        [one.reached.mean for one in line],
        yerr=[one.reached.spread or 0 for one in line],
        color=labels.colour(row),
        linestyle=":" if line[0].card.is_control else "-",
        marker=marker,
        markersize=6,
        capsize=2,
        linewidth=1.4,
        elinewidth=0.9,
        label=f"{row.protector}{' (control)' if line[0].card.is_control else ''}",
    )
    for one in line:
        if text := labels.options[one.card.row.protector, one.card.row.options]:
            offset, place = (5, 5), (one.psnr, one.reached.mean)
            note = axes.annotate(text, place, offset, textcoords="offset points", fontsize=7.5, color=MUTED)
            note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
