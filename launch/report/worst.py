"""The headline of an audit: what the best thief leaves of a protection, over every attack that was tried."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medveil.errors import UserError
from medveil.launch.exploiters.attacks import parse_attack
from medveil.launch.exploiters.attacks.names import FULL
from medveil.launch.report.summary import Row, Score, Stat, natural

MANY = 6
"""From more attacks than that on, figures that have a bar or a curve for each show the worst alone."""

_FEWEST_POINTS = 1.0
"""A protection that costs less has nothing that could be given back."""


@dataclass(frozen=True)
class Worst:
    """A protector on one data set against one exploiter, over ``attacks`` attacks, by the headline ``metric``.

    ``row``: of the attack after which the exploiter scored highest; ``alone``: the same among the attacks that take
    nothing but the release. ``clean``: trained on the originals without an attack; ``protected``: on the release
    without one; percent. ``loss``: of the worst case, clean minus attacked, seed by seed, in points.
    """

    row: Row
    alone: Row
    metric: str
    clean: Stat | None
    protected: Stat | None
    loss: Stat | None
    attacks: int

    @property
    def score(self) -> Score:
        return self.row.scores[self.metric]

    @property
    def given_back(self) -> float | None:
        """Percent of the lost score that the attack gives back: (attacked - protected) / (clean - protected)."""
        return given_back(self.clean, self.protected, self.score.protected)


def given_back(clean: Stat | None, protected: Stat | None, attacked: Stat | None) -> float | None:
    """Percent of the lost score; None where less than a point was lost, or one of the three was not measured."""
    if clean is None or protected is None or attacked is None or clean.mean - protected.mean < _FEWEST_POINTS:
        return None
    return 100 * (attacked.mean - protected.mean) / (clean.mean - protected.mean)


def worst_cases(rows: Sequence[Row]) -> list[Worst]:
    """One for each protector, setting and exploiter of a data set against which several attacks were tried."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.headline is not None and row.scores[row.headline].protected is not None:
            groups.setdefault((row.data, row.protector, row.options, row.exploiter), []).append(row)
    return [_worst(same) for same in groups.values() if len(same) > 1]


def _worst(rows: Sequence[Row]) -> Worst:
    metric = str(rows[0].headline)
    plain = next((row for row in rows if row.attack == "none"), None)
    score = None if plain is None else plain.scores[metric]
    alone = [row for row in rows if _from_release_alone(row.attack)]
    worst = max(rows, key=lambda row: _mean(row, metric))
    return Worst(
        row=worst,
        alone=max(alone or rows, key=lambda row: _mean(row, metric)),
        metric=metric,
        clean=None if score is None else score.clean,
        protected=None if score is None else score.protected,
        loss=None if plain is None else loss_between(plain, worst, metric),
        attacks=len(rows),
    )


def _from_release_alone(attack: str) -> bool:
    """Whether the attack takes nothing but the release; not known of one that another version had."""
    try:
        parsed = parse_attack(attack)
    except UserError:
        return False
    return not any(parsed.needs(what) for what in ("originals", "weights"))


def loss_between(plain: Row, attacked: Row, metric: str) -> Stat | None:
    """What a model trained on originals reaches in ``plain``, minus what one trained on the release does in
    ``attacked``, in points, seed by seed; a seed without the former is held against the mean of those that there are.
    """
    clean = {cell.seed: cell.clean.last[metric] for cell in plain.cells if cell.clean and metric in cell.clean.last}
    if not clean:
        return None
    mean = math.fsum(clean.values()) / len(clean)
    return Stat.of(
        100 * (clean.get(cell.seed, mean) - cell.protected.last[metric])
        for cell in attacked.cells
        if cell.protected and metric in cell.protected.last
    )


def _mean(row: Row, metric: str) -> float:
    protected = row.scores[metric].protected
    return protected.mean if protected is not None else float("-inf")


def attacks_of(rows: Sequence[Row]) -> list[str]:
    """The attacks of ``rows`` in the order of the list "full", then the others by name."""
    order = {name: place for place, name in enumerate(FULL)}
    return sorted({row.attack for row in rows}, key=lambda name: (order.get(name, len(order)), natural(name)))


def highlighted(rows: Sequence[Row]) -> list[Row]:
    """Of rows of one data set and exploiter with many attacks: those without one, and each protector's worst."""
    if len(attacks_of(rows)) <= MANY:
        return list(rows)
    worst = {id(one.row) for one in worst_cases(rows)}
    return [row for row in rows if row.attack == "none" or id(row) in worst]
