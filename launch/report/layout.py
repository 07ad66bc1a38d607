"""A table laid out as a paper has it: some parts of a row's identity down the side, others across, and averages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from medveil.launch.report.config import Factor, Layout
from medveil.launch.report.summary import METRICS, Row, Stat

_NAMES = {**METRICS, "psnr": "PSNR", "ssim": "SSIM"}
_AVERAGE = "average"


@dataclass(frozen=True)
class Value:
    """Ours, and the published one, in percent (``psnr`` in dB); None where there is none."""

    ours: float | None
    published: float | None


Lines = dict[str, dict[str, dict[str, Value]]]
"""Line -> group of columns -> metric -> value, all in the order in which they first come."""


def laid_out(rows: Sequence[Row], layout: Layout) -> Lines:
    """The values of ``rows`` in the table that ``layout`` describes; a line that lacks a group has no average.

    Where rows that differ in what stands on neither side would fall into one cell, each has a line of its own.
    """
    placed = []
    for row in rows:
        parts = _parts(row)
        values = {name: value for name in layout.values if (value := _value(row, name)) is not None}
        if values and all(parts[part] == wanted for part, wanted in layout.only.items()):
            placed.append((parts, values))
    lines, collided = _lines(placed, layout.rows, layout.columns)
    if collided:
        sides = {*layout.rows, *layout.columns}
        telling = [part for part in get_args(Factor) if part not in sides and len({at[part] for at, _ in placed}) > 1]
        lines, _ = _lines(placed, [*layout.rows, *telling], layout.columns)
    groups = {group for line in lines.values() for group in line}
    if layout.average and len(groups) > 1:
        for line in lines.values():
            if len(line) == len(groups):
                line[_AVERAGE] = {name: _mean([cells.get(name) for cells in line.values()]) for name in layout.values}
    return lines


def _lines(
    placed: Sequence[tuple[Mapping[str, str], Mapping[str, Value]]], rows: Sequence[str], columns: Sequence[str]
) -> tuple[Lines, bool]:
    """The table, and whether two different values of it fell into one cell."""
    lines: Lines = {}
    collided = False
    for parts, values in placed:
        cells = lines.setdefault(_joined(parts, rows), {}).setdefault(_joined(parts, columns), {})
        collided = collided or any(cells.get(name, value) != value for name, value in values.items())
        cells.update(values)
    return lines, collided


def table_of(rows: Sequence[Row], layout: Layout) -> tuple[list[str], list[list[str]]]:
    """Head and body of that table: ours, and the published value in brackets where there is one."""
    lines = laid_out(rows, layout)
    groups = list(dict.fromkeys(group for line in lines.values() for group in line))
    groups.sort(key=lambda group: group == _AVERAGE)
    head = [" · ".join(layout.rows)]
    head += [f"{group} {_NAMES.get(name, name)}".strip() for group in groups for name in layout.values]
    body = [
        [line, *(_shown(cells.get(group, {}).get(name)) for group in groups for name in layout.values)]
        for line, cells in lines.items()
    ]
    return head, body


def _parts(row: Row) -> Mapping[str, str]:
    protector = " ".join(part for part in (row.protector, str(row.options)) if part)
    return {"data": row.data, "protector": protector, "exploiter": row.exploiter_text, "attack": row.attack or "none"}


def _joined(parts: Mapping[str, str], names: Sequence[str]) -> str:
    return " · ".join(parts[name] for name in names)


def _value(row: Row, name: str) -> Value | None:
    if name in ("psnr", "ssim"):
        stat: Stat | None = getattr(row, name)
        return None if stat is None else Value(stat.mean, getattr(row, f"published_{name}"))
    score = row.scores.get(name)
    if score is None or score.protected is None:
        return None
    return Value(score.protected.mean, score.published)


def _mean(values: Sequence[Value | None]) -> Value:
    def over(which: str) -> float | None:
        known: list[Any] = [getattr(value, which) for value in values if value is not None]
        return None if len(known) < len(values) or None in known else sum(known) / len(known)

    return Value(over("ours"), over("published"))


def _shown(value: Value | None) -> str:
    if value is None or value.ours is None:
        return ""
    return f"{value.ours:.2f}" + ("" if value.published is None else f" ({value.published:.2f})")
