"""Short names, and one colour and line style for each protector wherever it is drawn."""

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from medveil.launch.report.summary import Row, attack_text
from medveil.launch.results import Exploiter, Options

COLOURS = {
    "none": "#6b7280",
    "random": "#b08900",
    "veil": "#1d4ed8",
    "pattern": "#8a6d3b",
    "umed": "#0f766e",
    "salm": "#0f766e",
    "em": "#b4431c",
    "tap": "#5b4bb3",
    "lsp": "#2563a8",
    "ar": "#5f7d14",
    "sep": "#b0276b",
}
"""Of those that come with the project."""

_OTHERS = ["#7a4a21", "#0e7490", "#be185d", "#4d7c0f"]

STYLES: Sequence[str | tuple[int, tuple[float, ...]]] = ["-", (0, (4, 1.4)), (0, (1, 1.2)), (0, (6, 1.4, 1, 1.4))]
"""Of the settings of one protector, in their order."""


@dataclass(frozen=True)
class Labels:
    """What rows of one data set are called in figures: only those options by which they differ."""

    options: dict[tuple[str, Options], str]
    exploiters: dict[Exploiter, str]

    @staticmethod
    def of(rows: Sequence[Row]) -> "Labels":
        options: dict[tuple[str, Options], str] = {}
        for protector in dict.fromkeys(row.protector for row in rows):
            tried = list(dict.fromkeys(row.options for row in rows if row.protector == protector))
            options |= {(protector, one): short for one, short in distinct(tried).items()}
        return Labels(options, _exploiters(list(dict.fromkeys(row.exploiter for row in rows if row.exploiter))))

    def protector(self, row: Row) -> str:
        return " · ".join(part for part in (row.protector, self.options[row.protector, row.options]) if part)

    def exploiter(self, row: Row) -> str:
        return self.exploiters[row.exploiter] if row.exploiter else ""

    def row(self, row: Row) -> str:
        """The protector and, if there is one, the attack."""
        return " · ".join(part for part in (self.protector(row), attack_text(row.attack)) if part)

    def colour(self, row: Row) -> str:
        others = [name for name in dict.fromkeys(p for p, _ in self.options) if name not in COLOURS]
        return COLOURS.get(row.protector) or _OTHERS[others.index(row.protector) % len(_OTHERS)]

    def variant(self, row: Row) -> int:
        """Which of the settings of its protector the row has, counted from 0."""
        return [one for name, one in self.options if name == row.protector].index(row.options)

    def style(self, row: Row) -> str | tuple[int, tuple[float, ...]]:
        return STYLES[self.variant(row) % len(STYLES)]


def distinct(tried: Collection[Options]) -> dict[Options, str]:
    """Each of ``tried`` ("k=10 mode=strict ...") without the settings that all of them have."""
    common = set.intersection(*(set(one.items()) for one in tried)) if tried else set()
    return {one: str(Options(item for item in one.items() if item not in common)) for one in tried}


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of at most ``width`` characters, where it has spaces to break at."""
    joined = text.replace(" · ", " ·\N{NO-BREAK SPACE}")  # no line ends with a dot
    return "\n".join(textwrap.wrap(joined, width, break_on_hyphens=False)) or text


def _exploiters(tried: Sequence[Exploiter]) -> dict[Exploiter, str]:
    """The model's name always; what else tells the runs of one model apart."""
    short: dict[Exploiter, str] = {}
    for model in dict.fromkeys(one.model for one in tried):
        same = [one for one in tried if one.model == model]
        rest = distinct(list(dict.fromkeys(one.settings for one in same)))
        short |= {one: f"{model} {rest[one.settings]}".strip() for one in same}
    return short
