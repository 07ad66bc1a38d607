"""The headline of an audit, as lines of text for the screen."""

from collections.abc import Sequence

from medveil.launch.report.summary import Stat, metric_text, summarise
from medveil.launch.report.worst import Worst, worst_cases
from medveil.launch.results import CellResult


def headline(cells: Sequence[CellResult]) -> list[str]:
    """For each exploiter the worst case over the attacks; nothing where one attack alone was tried."""
    lines = []
    for one in worst_cases(summarise(cells)):
        name = metric_text(one.metric)
        lines.append(f"worst case of {one.attacks} attacks on {one.row.exploiter_text}, {name} in percent:")
        lines += [f"  {_said(one.clean)} trained on originals, {_said(one.protected)} on the release as it is"]
        lines.append(f"  {_said(one.score.protected)} after {one.row.attack}{_back(one)}")
        if one.alone is not one.row:
            score = one.alone.scores[one.metric].protected
            lines.append(f"  {_said(score)} after {one.alone.attack}, the worst without anything but the release")
    return lines


def _back(one: Worst) -> str:
    return "" if one.given_back is None else f": {one.given_back:.0f}% of what was lost is given back"


def _said(stat: Stat | None) -> str:
    if stat is None:
        return "(not measured)"
    return f"{stat.mean:.1f}" + ("" if stat.spread is None else f" ± {stat.spread:.1f}")
