"""The first thing that the page shows of a data set: what each protector leaves a model, in the worst case, and whether
that is more than a control does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medveil.launch.report.summary import CONTROLS, Row, Stat
from medveil.launch.report.worst import Worst, worst_cases

NOTHING = 1.0
"""Points below which a loss, or its difference from a control's, counts as none."""


@dataclass(frozen=True)
class Card:
    """What training on the images of one protector did to the first exploiter, by the headline ``metric``.

    ``attacked``: the row of the attack that gave the most back, of ``attacks``; without any, the row without one.
    ``clean``: trained on originals; ``reached``: on the release after the attack; ``plain``: without one; percent.
    ``loss``: clean minus reached, in points, seed by seed. ``beyond``: how much larger it is than that of the strongest
    ``control``, its spread that of both; None for a control, and where there is none.
    """

    row: Row
    metric: str
    attacked: Row
    attacks: int
    given_back: float | None
    clean: Stat | None
    reached: Stat | None
    plain: Stat | None
    loss: Stat | None
    control: "Card | None" = None
    beyond: Stat | None = None

    @property
    def is_control(self) -> bool:
        return self.row.protector in CONTROLS

    @property
    def verdict(self) -> str:
        """``control``, ``unknown``, ``nothing`` lost, ``even`` with the control, or ``protects``."""
        if self.is_control:
            return "control"
        if self.loss is None:
            return "unknown"
        if not _is_more(self.loss):
            return "nothing"
        return "protects" if self.beyond is None or _is_more(self.beyond) else "even"


def cards_of(rows: Sequence[Row]) -> list[Card]:
    """One for each protector and setting among ``rows`` of one data set, the strongest first, controls last.

    They are of the first exploiter; what an authorised user's model does with the images is no attack on them.
    """
    rows = [row for row in rows if row.exploiter is None or row.exploiter.authorised is None]
    if not rows:
        return []
    exploiter = rows[0].exploiter
    rows = [row for row in rows if row.exploiter == exploiter and row.protector != "none"]
    cases = {(one.row.protector, one.row.options): one for one in worst_cases(rows)}
    releases = {(row.protector, row.options): row for row in reversed(rows)}
    cards = [_card(row, cases.get(key)) for key, row in releases.items()]
    controls = [card for card in cards if card.is_control and card.loss is not None]
    strongest = max(controls, key=_lost, default=None)
    return sorted((_held_against(card, strongest) for card in cards), key=lambda card: (card.is_control, -_lost(card)))


def _card(row: Row, case: Worst | None) -> Card:
    metric = str(row.headline)
    score = row.scores[metric]
    if case is None:
        return Card(row, metric, row, 1, None, score.clean, score.protected, score.protected, score.drop)
    found = (case.clean, case.score.protected, case.protected, case.loss)
    return Card(row, metric, case.row, case.attacks, case.given_back, *found)


def _held_against(card: Card, control: Card | None) -> Card:
    if card.is_control or control is None or card.loss is None or control.loss is None:
        return card
    spreads = [stat.spread for stat in (card.loss, control.loss) if stat.spread is not None]
    count = min(card.loss.count, control.loss.count)
    beyond = Stat(card.loss.mean - control.loss.mean, math.hypot(*spreads) if spreads else None, count)
    return replace(card, control=control, beyond=beyond)


def _lost(card: Card) -> float:
    return -math.inf if card.loss is None else card.loss.mean


def _is_more(points: Stat) -> bool:
    """Whether ``points`` are more than nothing, and more than their spread."""
    return points.mean > max(NOTHING, points.spread or 0.0)
