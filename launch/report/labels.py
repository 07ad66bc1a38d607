"""Short names, and one colour and line style for each protector wherever it is drawn."""

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from medveil.launch.report.summary import Row

COLOURS = {
    "none": "#6b7280",
    "random": "#b08900",
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

    options: dict[tuple[str, str], str]
    exploiters: dict[str, str]

    @staticmethod
    def of(rows: Sequence[Row]) -> "Labels":
        options: dict[tuple[str, str], str] = {}
        for protector in dict.fromkeys(row.protector for row in rows):
            texts = list(dict.fromkeys(row.options for row in rows if row.protector == protector))
            options |= {(protector, text): short for text, short in distinct(texts).items()}
        return Labels(options, _exploiters(list(dict.fromkeys(row.exploiter for row in rows))))

    def protector(self, row: Row) -> str:
        return " · ".join(part for part in (row.protector, self.options[row.protector, row.options]) if part)

    def exploiter(self, row: Row) -> str:
        return self.exploiters[row.exploiter]

    def row(self, row: Row) -> str:
        """The protector and, if there is one, the defence."""
        return " · ".join([self.protector(row), *([row.defence] if row.defence not in ("", "none") else [])])

    def colour(self, row: Row) -> str:
        others = [name for name in dict.fromkeys(p for p, _ in self.options) if name not in COLOURS]
        return COLOURS.get(row.protector) or _OTHERS[others.index(row.protector) % len(_OTHERS)]

    def variant(self, row: Row) -> int:
        """Which of the settings of its protector the row has, counted from 0."""
        return [text for name, text in self.options if name == row.protector].index(row.options)

    def style(self, row: Row) -> str | tuple[int, tuple[float, ...]]:
        return STYLES[self.variant(row) % len(STYLES)]


def distinct(texts: Collection[str]) -> dict[str, str]:
    """Each of ``texts`` ("k=10 mode=strict ...") without the parts that all of them have."""
    parts = {text: text.split() for text in texts}
    common = set.intersection(*(set(words) for words in parts.values())) if parts else set()
    return {text: " ".join(word for word in words if word not in common) for text, words in parts.items()}


def without(text: str, *names: str) -> str:
    """``text`` ("k=10 mode=strict") without the options called ``names``."""
    return " ".join(word for word in text.split() if word.partition("=")[0] not in names)


def option(text: str, name: str) -> str | None:
    """The value of the option ``name`` in ``text``, None without it."""
    return next((word.partition("=")[2] for word in text.split() if word.startswith(f"{name}=")), None)


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of at most ``width`` characters, where it has spaces to break at."""
    kept = text.replace(" · ", " ·\N{NO-BREAK SPACE}")  # no line ends with a dot
    return "\n".join(textwrap.wrap(kept, width, break_on_hyphens=False)) or text


def _exploiters(texts: Sequence[str]) -> dict[str, str]:
    """The model's name always; options where they differ among the runs of one model."""
    short: dict[str, str] = {}
    for model in dict.fromkeys(text.partition(" ")[0] for text in texts):
        same = {text: text.partition(" ")[2] for text in texts if text.partition(" ")[0] == model}
        rest = distinct(list(same.values()))
        # "mean of 4" is a name, not options.
        short |= {text: text if model == "mean" else f"{model} {rest[own]}".strip() for text, own in same.items()}
    return short
