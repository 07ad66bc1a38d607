"""``report.html``: one page that needs nothing but itself."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from medveil.launch.report.cropping import Gap, gaps
from medveil.launch.report.picture import Picture, of_kind
from medveil.launch.report.summary import CONTROLS, COST, METRICS, SIMILARITY, Row, Score, metrics_of
from medveil.launch.report.tables import failures, number, releases
from medveil.launch.report.worst import Worst, worst_cases
from medveil.launch.results import CellResult
from medveil.metrics import IN_PIXELS

MEANINGS = {
    "differing_pixels": "The share of the pixels that an authorised user's segmentation model, trained on other clean "
    "images, decides differently on the released images than on the originals. The lower, the better for that user.",
    "dsc": "How well the region that the model draws covers the true one, image by image: "
    "100 is a perfect match, 0 no overlap.",
    "dsc_pooled": "The same overlap, counted over the pixels of all test images together.",
    "jaccard": "A stricter overlap: the shared area over the area that either covers, image by image.",
    "jaccard_pooled": "The stricter overlap, counted over the pixels of all test images together.",
    "hd95": "How far, in pixels, the border of the drawn region lies from the true one, but for the farthest "
    "twentieth. The lower, the better the model; a region that was missed altogether counts as the image's diagonal.",
    "accuracy": "The share of test images that the model puts in the right class. "
    "Always answering the most frequent class already scores that class's share.",
    "balanced_accuracy": "Accuracy as the mean over the classes, so that a frequent class does not hide the others. "
    "Guessing scores 100 divided by the number of classes.",
    "auc": "How well the model ranks a right class above a wrong one: 100 is perfect, 50 is guessing.",
}


@dataclass(frozen=True)
class Card:
    """The headline of one protector: what training on its images did to the first exploiter.

    ``worst``: after the attack that gave the most back, where several were tried; ``score``: without one.
    """

    row: Row
    metric: str
    score: Score
    control: bool
    worst: Worst | None = None


@dataclass(frozen=True)
class Section:
    """Everything the page shows of one data set."""

    data: str
    anchor: str
    metrics: list[str]
    rows: list[Row]
    only_protected: list[Row]
    cards: list[Card]
    gaps: list[Gap]
    releases: list[Row]
    costs: dict[str, str]
    heatmaps: list[Picture]
    charts: list[Picture]
    comparisons: list[Picture]
    sheets: list[Picture]


def html_text(
    results: Sequence[CellResult], rows: Sequence[Row], pictures: Sequence[Picture], title: str, note: str = ""
) -> str:
    """The page, with every picture inside it."""
    names = sorted({row.data for row in rows})
    sections = [_section(f"set-{i}", data, rows, pictures) for i, data in enumerate(names, 1)]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medveil.launch.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": lambda *a, **k: number(*a, **k).replace("-", "\N{MINUS SIGN}"), "inline": inline}
    used = [m for m in METRICS if any(m in s.metrics for s in sections)]
    versions = {tuple(sorted(r.versions.items())) for r in results if r.versions}
    return environment.get_template("page.html").render(
        title=title,
        note=note,
        sections=sections,
        failed=failures(results),
        cells=len(results),
        seeds=sorted({r.seed for r in results}),
        names=METRICS,
        pixels=IN_PIXELS,
        similarity=SIMILARITY,
        meanings={METRICS[m]: MEANINGS[m] for m in used},
        published=any(s.published is not None for row in rows for s in row.scores.values()),
        versions=[dict(v) for v in sorted(versions)],
    )


def _section(anchor: str, data: str, rows: Sequence[Row], pictures: Sequence[Picture]) -> Section:
    of_data = [row for row in rows if row.data == data]
    audited = [row for row in of_data if row.scores]
    return Section(
        data=data,
        anchor=anchor,
        metrics=metrics_of(o for row in of_data for c in row.cells for o in (c.protected, c.clean)),
        rows=audited,
        only_protected=[row for row in of_data if not row.scores],
        cards=_cards(audited),
        gaps=gaps(of_data),
        releases=releases(of_data),
        costs={name: title for name, title in COST.items() if any(name in row.cost for row in of_data)},
        heatmaps=of_kind(pictures, data, "heatmap"),
        charts=of_kind(pictures, data, "bars") + of_kind(pictures, data, "curves"),
        comparisons=of_kind(pictures, data, "comparison"),
        sheets=of_kind(pictures, data, "sheet"),
    )


def _cards(rows: Sequence[Row]) -> list[Card]:
    if not rows:
        return []
    plain = [r for r in rows if r.exploiter == rows[0].exploiter and r.attack == rows[0].attack]
    cards = [(r, str(r.headline)) for r in plain if r.protector != "none"]
    cases = {(one.row.protector, one.row.options, one.row.exploiter): one for one in worst_cases(rows)}
    worst = [cases.get((row.protector, row.options, row.exploiter)) for row, _ in cards]
    return [Card(r, m, r.scores[m], r.protector in CONTROLS, w) for (r, m), w in zip(cards, worst, strict=True)]


def inline(path: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
