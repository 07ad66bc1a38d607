"""SALM's Figure 7: what models reach on the classes that were protected, beside what they reach on the originals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medveil.launch.report.figures import GRID, INK, chart
from medveil.launch.report.labels import Labels
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.summary import Row, Stat, attack_text
from medveil.launch.results import Outcome

_CLEAN, _PROTECTED, _REST = "#9aa5b4", "#0f766e", "#d9dee5"


def draw_classes(rows: Sequence[Row], folder: Path) -> list[Picture]:
    """One figure for each release of which some classes are protected and whose originals were trained on too."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if reached(row) is not None:
            groups.setdefault((row.protector, str(row.options)), []).append(row)
    labels = Labels.of(rows)
    return [_drawn(same, labels, folder) for same in groups.values()]


def reached(row: Row) -> tuple[Stat, Stat, Stat] | None:
    """Accuracy in percent on the protected classes of a model trained on originals and of one trained on the release,
    and of the latter on the other classes; over the seeds. None where that is not known or does not apply.
    """
    clean, protected, rest = [], [], []
    for cell in row.cells:
        chosen = cell.protected.protected_classes if cell.protected else []
        if not attack_text(row.attack) and chosen and cell.clean and cell.clean.confusion:
            others = [number for number in range(len(cell.clean.confusion)) if number not in chosen]
            clean.append(_accuracy(cell.clean, chosen))
            protected.append(_accuracy(cell.protected, chosen))
            rest.append(_accuracy(cell.protected, others))
    stats = Stat.of(clean), Stat.of(protected), Stat.of(rest)
    return None if None in stats else stats  # type: ignore[return-value]


def _accuracy(outcome: Outcome | None, classes: Sequence[int]) -> float | None:
    table = np.array(outcome.confusion if outcome else [], dtype=np.int64)
    if not len(table) or not len(classes) or max(classes) >= len(table):
        return None
    of_classes = table[list(classes)]
    return float(100 * table[list(classes), list(classes)].sum() / max(1, of_classes.sum()))


def _drawn(rows: Sequence[Row], labels: Labels, folder: Path) -> Picture:
    first = rows[0]
    figure, axes = chart(f"{first.data} · {labels.protector(first)}", 3.4)
    said = []
    kinds = (("originals", _CLEAN), ("the release", _PROTECTED), ("the release, other classes", _REST))
    for place, row in enumerate(rows):
        stats = reached(row)
        assert stats is not None
        for number, (stat, (name, colour)) in enumerate(zip(stats, kinds, strict=True)):
            at = place + 0.27 * (number - 1)
            label = None if place else name
            axes.bar(at, stat.mean, 0.25, yerr=stat.spread or None, color=colour, ecolor=INK, label=label)
        clean, protected, rest = (f"{stat.mean:.1f}" for stat in stats)
        said.append(
            f"{labels.exploiter(row)}: {clean} from originals, {protected} from the release, {rest} of the rest"
        )
    axes.set_xticks(range(len(rows)), [labels.exploiter(row) for row in rows])
    axes.set(ylabel="accuracy, percent", ylim=(0, 102))
    axes.grid(True, axis="y", color=GRID)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8.5)
    return save(
        figure,
        folder,
        f"classes-{first.data}-{first.label}",
        first.data,
        "bars",
        "Accuracy on clean test images of the protected classes, after training on the originals and on the release, "
        "and of the other classes; lines are a standard deviation over the seeds.",
        f"Accuracy on the protected classes of {first.data} in percent. {'; '.join(said)}.",
    )
