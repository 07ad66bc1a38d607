"""``report.html``: one page that needs nothing but itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from medveil.launch.report.blink import Blink, blinks_of, inline
from medveil.launch.report.cards import Card, cards_of
from medveil.launch.report.cropping import Gap, gaps
from medveil.launch.report.heatmap import Grid, grids_of
from medveil.launch.report.picture import Picture, of_kind
from medveil.launch.report.summary import COST, METRICS, SIMILARITY, Row, by_data, metrics_of
from medveil.launch.report.tables import failures, number, releases
from medveil.launch.results import CellResult
from medveil.metrics import IN_PIXELS

MEANINGS = {
    "differing_pixels": "The share of the pixels that an authorised user's segmentation model, trained on other clean "
    "images, decides differently on the released images than on the originals. The lower, the better for that user.",
    "dsc": "How well the region that the model draws covers the true one, image by image: "
    "100 is a perfect match, 0 no overlap.",
    "dsc_pooled": "The same overlap, counted over the pixels of all test images together.",
    "dsc_volume": "The same overlap, volume by volume, each counted as a whole.",
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
    grids: list[Grid]
    frontiers: list[Picture]
    charts: list[Picture]
    comparisons: list[Picture]
    blinks: list[Blink]
    authorised: list[Picture]


def html_text(
    results: Sequence[CellResult], rows: Sequence[Row], pictures: Sequence[Picture], title: str, note: str = ""
) -> str:
    """The page, with every picture inside it."""
    sections = [
        _section(f"set-{i}", data, of_data, pictures) for i, (data, of_data) in enumerate(by_data(rows).items(), 1)
    ]
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


def _section(anchor: str, data: str, of_data: Sequence[Row], pictures: Sequence[Picture]) -> Section:
    audited = [row for row in of_data if row.scores]
    return Section(
        data=data,
        anchor=anchor,
        metrics=metrics_of(o for row in of_data for c in row.cells for o in (c.protected, c.clean)),
        rows=audited,
        only_protected=[row for row in of_data if not row.scores],
        cards=cards_of(audited),
        gaps=gaps(of_data),
        releases=releases(of_data),
        costs={name: title for name, title in COST.items() if any(name in row.cost for row in of_data)},
        grids=grids_of(audited),
        frontiers=of_kind(pictures, data, "frontier"),
        charts=of_kind(pictures, data, "bars") + of_kind(pictures, data, "curves"),
        comparisons=of_kind(pictures, data, "comparison"),
        blinks=blinks_of(of_data),
        authorised=of_kind(pictures, data, "authorised"),
    )
