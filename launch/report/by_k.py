"""SALM's Figure 2, right: what k, the percentage of elements that may change, does to the exploiter."""

from collections.abc import Sequence
from pathlib import Path

from medveil.launch.report.figures import DASHED, GRID, INK, chart
from medveil.launch.report.labels import STYLES, Labels, distinct, wrapped
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.summary import Row, Stat, attack_text, metric_text
from medveil.launch.results import Exploiter, Options

FEWEST = 3
"""Values of k that make a figure."""

_COLOURS = ["#0f766e", "#b4431c", "#5b4bb3", "#2563a8"]


def draw_by_k(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """One figure per exploiter and attack under which SALM was tried with three values of k or more."""
    groups: dict[tuple[Exploiter | None, str], list[Row]] = {}
    for row in rows:
        if row.protector == "salm" and row.scores:
            groups.setdefault((row.exploiter, row.attack), []).append(row)
    pictures = []
    for same in groups.values():
        lines: dict[Options, list[tuple[float, Row]]] = {}
        for row in same:
            if (k := row.options.get("k")) is not None:
                lines.setdefault(row.options.without("k"), []).append((float(k), row))
        if max(map(len, lines.values()), default=0) >= FEWEST:
            pictures.append(_by_k(same, lines, Labels.of(rows), folder))
    return pictures


def _by_k(rows: Sequence[Row], lines: dict[Options, list[tuple[float, Row]]], labels: Labels, folder: Path) -> Picture:
    data, exploiter, attack, metric = rows[0].data, rows[0].exploiter, rows[0].attack, str(rows[0].headline)
    name = metric_text(metric)
    suffix = f" · {attack}" if attack_text(attack) else ""
    figure, axes = chart(f"{data} · {labels.exploiter(rows[0])}{suffix}", 3.2 + 0.17 * len(lines))
    clean = next((stat for row in rows if (stat := row.scores[metric].clean) is not None), None)
    if clean is not None:
        axes.axhline(clean.mean, linestyle=DASHED, color=INK, linewidth=1.4, label="originals (k = 0)")
    said = []
    short = distinct(list(lines))
    for number, (text, points) in enumerate(sorted(lines.items(), key=lambda line: str(line[0]))):
        known = sorted((k, stat) for k, row in points if (stat := row.scores[metric].protected) is not None)
        starts: list[tuple[float, Stat]] = [(0.0, clean)] if clean is not None else []
        colour = _COLOURS[number % len(_COLOURS)]
        ks, stats = zip(*(starts + known), strict=True)
        means = [stat.mean for stat in stats]
        spreads = [stat.spread or 0 for stat in stats]
        label = wrapped(" · ".join(part for part in ("salm", short[text]) if part), 70)
        style = STYLES[number % len(STYLES)]
        axes.plot(ks, means, linestyle=style, marker="o", markersize=4, color=colour, label=label, linewidth=1.8)
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(ks, low, high, color=colour, alpha=0.13, linewidth=0)
        said.append(f"{str(text) or 'salm'}: " + ", ".join(f"{stat.mean:.1f} at k = {k:g}" for k, stat in known))
    axes.set(xlabel="k, percent of the elements", ylabel=f"{name}, percent", ylim=(0, 102), xlim=(-2, None))
    axes.grid(True, color=GRID)
    figure.legend(loc="outside lower left", ncols=1, frameon=False, fontsize=8.5, handlelength=2.6)
    return save(
        figure,
        folder,
        f"by-k-{data}-{exploiter}-{attack or 'none'}",
        data,
        "curves",
        f"{name} of {exploiter}{suffix} on clean test images against SALM's k; bands are a standard deviation over "
        "the seeds.",
        f"{name} of {exploiter} on {data}{suffix} in percent against k. {'; '.join(said)}.",
    )
