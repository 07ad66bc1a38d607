"""``results.csv``, ``worst.csv`` and ``results.md``."""

import csv
import io
import math
from collections.abc import Sequence

from medveil.launch.report.config import Layout
from medveil.launch.report.cropping import Gap, gaps
from medveil.launch.report.escaping import for_csv, for_markdown
from medveil.launch.report.layout import table_of
from medveil.launch.report.summary import COST, SIMILARITY, Row, Stat, by_data, metric_text, metrics_of, order
from medveil.launch.report.worst import Worst, worst_cases
from medveil.launch.results import CellResult, Options, Outcome
from medveil.metrics import shown

COLUMNS = [
    "data",
    "protector",
    "options",
    "exploiter",
    "attack",
    "seed",
    "metric",
    "clean",
    "protected",
    "psnr",
    "ssim",
    "seconds",
    "status",
]

WORST_COLUMNS = [
    "data",
    "protector",
    "options",
    "exploiter",
    "metric",
    "clean",
    "protected",
    "worst",
    "attack",
    "given_back",
    "worst_from_release_alone",
    "attack_from_release_alone",
    "attacks",
    "seeds",
]


def csv_text(results: Sequence[CellResult]) -> str:
    """One line per cell and metric, in percent (``psnr`` in dB), after the last epoch; one for a cell without any."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in sorted(results, key=order):
        cell = [*map(for_csv, (r.data, r.protector, str(r.options), r.exploiter_text, r.attack)), str(r.seed)]
        tail = [_cell(r.psnr), _cell(r.ssim, 100), _cell(r.seconds), for_csv(r.status)]
        for metric in metrics_of([r.clean, r.protected]) or [""]:
            writer.writerow([*cell, for_csv(metric), _last(r.clean, metric), _last(r.protected, metric), *tail])
    return out.getvalue()


def _last(outcome: Outcome | None, metric: str) -> str:
    return _cell(outcome.last.get(metric), shown(metric, 1)) if outcome else ""


def worst_csv_text(cases: Sequence[Worst]) -> str:
    """One line each, in percent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(WORST_COLUMNS)
    for one in cases:
        row, alone = one.row, one.alone.scores[one.metric].protected
        writer.writerow(
            [*map(for_csv, (row.data, row.protector, str(row.options), row.exploiter_text, one.metric))]
            + [_cell(stat) for stat in (one.clean, one.protected, one.score.protected)]
            + [for_csv(row.attack), _cell(one.given_back), _cell(alone), for_csv(one.alone.attack)]
            + [str(one.attacks), str(len(row.cells))]
        )
    return out.getvalue()


def _cell(value: Stat | float | None, scale: float = 1) -> str:
    value = value.mean if isinstance(value, Stat) else value
    return "" if value is None else f"{scale * value:.4f}"


def number(value: Stat | float | None, *, signed: bool = False, digits: int = 1) -> str:
    """A number as people read it, ``93.1 ± 0.4``; nothing for nothing."""
    if value is None:
        return ""
    mean, spread = (value.mean, value.spread) if isinstance(value, Stat) else (value, None)
    if math.isinf(mean):
        return "identical"
    mean = round(mean, digits) + 0.0  # not -0.0
    text = f"{mean:{'+' if signed and mean else ''}.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def failures(results: Sequence[CellResult]) -> list[CellResult]:
    """The cells that have no result, in table order."""
    return sorted((r for r in results if r.status != "done"), key=order)


def markdown_text(
    results: Sequence[CellResult], rows: Sequence[Row], title: str, note: str = "", layout: Layout | None = None
) -> str:
    """Per data set and metric one table of means and spreads over seeds, then the cells that have no result.

    With a ``layout`` the table that it describes comes first.
    """
    lines = [
        f"# {for_markdown(title)}",
        "",
        "Scores in percent on clean test images after the last epoch, mean ± standard deviation over seeds; drop in",
        "points; PSNR (dB) and SSIM (percent) of released against original images; what protecting took, where it was",
        "measured, for each 1,000 images.",
        *(["", note] if note else []),
    ]
    if layout is not None:
        lines += ["", "## As the paper lays it out: ours (published)", "", *_table(*table_of(rows, layout))]
    for data, of_data in by_data(rows).items():
        lines += ["", f"## {for_markdown(data)}"]
        if cases := worst_cases(of_data):
            lines += ["", "### Worst case over the attacks", "", *_worst_table(cases)]
        for metric in metrics_of(o for row in of_data for c in row.cells for o in (c.protected, c.clean)):
            lines += ["", f"### {for_markdown(metric_text(metric))}", "", *_metric_table(of_data, metric)]
        only = [row for row in of_data if not row.scores]
        if only:
            body = [[r.protector, str(r.options), *_likeness(r), _seeds(r)] for r in only]
            head = ["protector", "options", "PSNR", "published PSNR", "SSIM", "published SSIM", "seeds"]
            lines += ["", "### Protected only", "", *_table(head, body)]
        if found := gaps(of_data):
            lines += ["", "### Cropping", "", *_gap_table(found)]
        if measured := releases(of_data):
            lines += ["", "### Releases", "", *_release_table(measured)]
    failed = failures(results)
    if failed:
        head = ["data", "protector", "options", "exploiter", "attack", "seed", "reason"]
        body = [
            [r.data, r.protector, str(r.options), r.exploiter_text, r.attack, str(r.seed), r.status] for r in failed
        ]
        lines += ["", f"## Without a result: {len(failed)} of {len(results)} cells", "", *_table(head, body)]
    return "\n".join(lines) + "\n"


def _likeness(row: Row) -> list[str]:
    """PSNR and SSIM, each with the published value after it."""
    values = (row.psnr, row.published_psnr, row.ssim, row.published_ssim)
    return [number(value, digits=2) for value in values]


def _metric_table(rows: Sequence[Row], metric: str) -> list[str]:
    rows = [row for row in rows if metric in row.scores]
    head = ["protector", "options", "exploiter", "attack", "clean", "protected", "drop", "PSNR", "SSIM", "seeds"]
    printed = any(row.scores[metric].published is not None for row in rows)
    costs = [name for name in COST if any(name in row.cost for row in rows)]
    body = []
    for row in rows:
        score = row.scores[metric]
        cells = [row.protector, str(row.options), row.exploiter_text, row.attack]
        cells += [number(score.clean), number(score.protected), number(score.drop)]
        cells += [number(row.psnr, digits=2), number(row.ssim, digits=2), _seeds(row)]
        if printed:
            cells += [number(score.published), number(score.difference, signed=True)]
        cells += [number(row.cost.get(name), digits=2) for name in costs]
        body.append(cells)
    head += ["published", "difference"] if printed else []
    return _table(head + [COST[name] for name in costs], body)


def _worst_table(cases: Sequence[Worst]) -> list[str]:
    head = ["protector", "options", "exploiter", "clean", "protected", "worst", "attack", "given back"]
    head += ["worst from the release alone", "attack", "attacks", "seeds"]
    body = []
    for one in cases:
        back = "" if one.given_back is None else f"{one.given_back:.0f}%"
        alone = one.alone.scores[one.metric].protected
        cells = [one.row.protector, str(one.row.options), one.row.exploiter_text, number(one.clean)]
        cells += [number(one.protected), number(one.score.protected), one.row.attack, back]
        body.append([*cells, number(alone), one.alone.attack, str(one.attacks), _seeds(one.row)])
    return _table(head, body)


def releases(rows: Sequence[Row]) -> list[Row]:
    """One row for each protector and setting of which similarity or cost were measured, whatever was trained on it."""
    found: dict[tuple[str, str, Options], Row] = {}
    for row in rows:
        if row.similarity or row.cost:
            found.setdefault((row.data, row.protector, row.options), row)
    return list(found.values())


def _release_table(rows: Sequence[Row]) -> list[str]:
    printed = [name for name in SIMILARITY if any(name in row.published_similarity for row in rows)]
    head = ["protector", "options", "PSNR", "ROI PSNR"]
    for name, title in SIMILARITY.items():
        head += [title, f"published {title}"] if name in printed else [title]
    body = []
    for row in rows:
        cells = [row.protector, str(row.options), number(row.psnr, digits=2), number(row.roi_psnr, digits=2)]
        for name in SIMILARITY:
            cells.append(number(row.similarity.get(name), digits=2))
            if name in printed:
                cells.append(number(row.published_similarity.get(name)))
        body.append([*cells, *(number(row.cost.get(name), digits=2) for name in COST), _seeds(row)])
    return _table([*head, *COST.values(), "seeds"], body)


def _gap_table(found: Sequence[Gap]) -> list[str]:
    printed = any(one.cropped.published_gap is not None for one in found)
    head = [
        "protector",
        "options",
        "exploiter",
        "attack",
        "clean",
        "clean, cropped",
        "protected",
        "protected, cropped",
    ]
    head += ["gap", *(["published gap"] if printed else []), "seeds"]
    body = []
    for one in found:
        row = one.cropped
        scores = [part.scores[one.metric] for part in (one.whole, one.cropped)]
        cells = [row.protector, str(row.options), row.exploiter_text, row.attack]
        cells += [number(score.clean) for score in scores] + [number(score.protected) for score in scores]
        cells.append(number(one.gap, signed=True))
        cells += [number(row.published_gap, signed=True)] if printed else []
        body.append([*cells, _seeds(row)])
    return _table(head, body)


def _seeds(row: Row) -> str:
    return str(len({c.seed for c in row.cells}))


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(for_markdown(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
