"""SALM's Table 4: how much more the protected accuracy falls by cropping than the clean one."""

from collections.abc import Sequence
from dataclasses import dataclass

from medveil.launch.report.summary import Row, Stat


@dataclass(frozen=True)
class Gap:
    """``whole`` and ``cropped``: rows alike but for the crop. ``gap`` in points of their headline metric, seed by
    seed: (protected - protected, cropped) - (clean - clean, cropped). Above 0 the crop costs a model that trained on
    the release more than one that trained on originals.
    """

    whole: Row
    cropped: Row
    gap: Stat

    @property
    def metric(self) -> str:
        return str(self.whole.headline)


def gaps(rows: Sequence[Row]) -> list[Gap]:
    """One for each row whose attack has a crop, if there are the same row without it and clean scores of both."""
    known = {_key(row, row.attack or "none"): row for row in rows if row.scores}
    found = []
    for row in rows:
        rest = "+".join(part for part in row.attack.split("+") if not part.startswith("crop")) or "none"
        whole = known.get(_key(row, rest))
        if not row.scores or rest == row.attack or whole is None:
            continue
        metric = str(row.headline)
        falls, falls_cropped = _drops(whole, metric), _drops(row, metric)
        # (p - pc) - (c - cc) = (cc - pc) - (c - p): the drop with the crop, less the drop without it.
        gap = Stat.of(falls_cropped[seed] - falls[seed] for seed in falls if seed in falls_cropped)
        if gap is not None:
            found.append(Gap(whole, row, gap))
    return found


def _key(row: Row, attack: str) -> tuple[object, ...]:
    return row.data, row.protector, row.options, row.exploiter, attack


def _drops(row: Row, metric: str) -> dict[int, float]:
    """Clean minus protected in points, by seed."""
    return {
        cell.seed: 100 * (cell.clean.last[metric] - cell.protected.last[metric])
        for cell in row.cells
        if cell.clean and cell.protected and metric in cell.clean.last and metric in cell.protected.last
    }
