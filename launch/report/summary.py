"""Means and spreads over seeds: what every table, figure and page of a report is made from."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from medveil.launch.report.published import Published
from medveil.launch.results import CellResult, Exploiter, Options, Outcome
from medveil.metrics import shown

METRICS = {
    "dsc": "DSC",
    "dsc_pooled": "DSC, pooled",
    "dsc_volume": "DSC of volumes",
    "jaccard": "Jaccard",
    "jaccard_pooled": "Jaccard, pooled",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "hd95": "HD95, pixels",
    "differing_pixels": "Pixels decided differently",
}
"""Every metric's name for people, in the order in which tables show them; the first that a cell has is its headline."""

SIMILARITY = {"ssim": "SSIM", "ahash": "aHash", "phash": "pHash", "dhash": "dHash", "nmi": "NMI"}
"""Measures of :mod:`medveil.similarity` in percent, by their names for people."""

COST = {"seconds_per_1000_images": "s per 1,000", "peak_memory_bytes_per_1000_images": "GiB per 1,000"}
"""What protecting took, as :mod:`medveil.launch.running.spent` has it and as a column is called."""

CONTROLS = ("none", "random", "pattern")
"""Protectors for which nothing was optimised; they come first."""


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (None for a single value) of ``count`` values."""

    mean: float
    spread: float | None
    count: int

    @staticmethod
    def of(values: Iterable[float | None]) -> "Stat | None":
        known = [v for v in values if v is not None]
        if not known:
            return None
        mean = math.fsum(known) / len(known)
        if len(known) == 1 or not math.isfinite(mean):
            return Stat(mean, None, len(known))
        return Stat(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (len(known) - 1)), len(known))


@dataclass(frozen=True)
class Score:
    """One metric of one row. Percent; ``drop`` and ``difference`` in points.

    ``drop``: clean minus protected, seed by seed. ``best``: the protected exploiter's best epoch. ``inside_clean`` and
    ``inside``: the training score of the clean and of the protected exploiter on the images that each was given.
    ``difference``: protected minus published.
    """

    clean: Stat | None
    protected: Stat | None
    drop: Stat | None
    best: Stat | None
    inside_clean: Stat | None
    inside: Stat | None
    published: float | None = None
    difference: float | None = None


@dataclass(frozen=True)
class Row:
    """The finished seeds of one protector on one data set against one exploiter and attack (empty: only protected).

    ``similarity``: :data:`SIMILARITY` in percent. ``cost``: :data:`COST` in seconds and GiB.
    """

    data: str
    protector: str
    options: Options
    exploiter: Exploiter | None
    attack: str
    cells: Sequence[CellResult]
    scores: dict[str, Score] = field(default_factory=dict)
    psnr: Stat | None = None
    ssim: Stat | None = None
    seconds: Stat | None = None
    roi_psnr: Stat | None = None
    published_psnr: float | None = None
    published_ssim: float | None = None
    published_gap: float | None = None
    similarity: dict[str, Stat] = field(default_factory=dict)
    published_similarity: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Stat] = field(default_factory=dict)

    @property
    def headline(self) -> str | None:
        return next(iter(self.scores), None)

    @property
    def label(self) -> str:
        """Protector with its options and, if there is one, the attack: a name within one data set and exploiter."""
        return " · ".join(part for part in (self.protector, str(self.options), attack_text(self.attack)) if part)

    @property
    def model(self) -> str:
        return self.cells[0].model

    @property
    def exploiter_text(self) -> str:
        """As tables show it; empty for a row that only protected."""
        return self.cells[0].exploiter_text

    @property
    def training(self) -> str:
        """How long and how wide the exploiter was trained, in words; empty where no record says."""
        outcomes = (outcome for cell in self.cells for outcome in (cell.protected, cell.clean) if outcome)
        training = next((outcome.training for outcome in outcomes if outcome.training), {})
        words = {
            "width": "width {}",
            "epochs": "{} epochs",
            "iterations": "{} iterations",
            "batch_size": "batches of {}",
        }
        return ", ".join(text.format(training[name]) for name, text in words.items() if name in training)


def attack_text(attack: str) -> str:
    """``attack`` as titles show it; empty for none."""
    return "" if attack in ("", "none") else attack


def metric_text(metric: str) -> str:
    """The name of ``metric`` for people; one that :data:`METRICS` has not goes by its own."""
    return METRICS.get(metric, metric)


def by_data(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each data set, in their order; the sets by name."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.data, []).append(row)
    return dict(sorted(found.items()))


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """A key that sorts k=5 before k=10."""
    words: Iterable[str] = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(word), "") if i % 2 else (1, 0.0, word) for i, word in enumerate(words))


def order(result: CellResult | Row) -> tuple[object, ...]:
    """Sorts cells and rows: by data set, exploiter, attack (none first), then controls before protectors."""
    rank = CONTROLS.index(result.protector) if result.protector in CONTROLS else len(CONTROLS)
    return (
        result.data,
        result.exploiter_text,
        attack_text(result.attack),
        rank,
        result.protector,
        natural(str(result.options)),
        result.seed if isinstance(result, CellResult) else 0,
    )


def summarise(results: Sequence[CellResult], published: Published | None = None) -> list[Row]:
    """One row per protector, options, exploiter and attack of a data set, over its finished seeds, in table order.

    A row that only protected is left out where an audit of the same release says the same and more. Where ``published``
    has values for the "mean of 4" exploiters, say, there is a row of that mean too, over seeds that have all of them.
    """
    groups: dict[tuple[str, str, Options, Exploiter | None, str], list[CellResult]] = defaultdict(list)
    done = [r for r in results if r.status == "done"]
    for cell in sorted([*done, *_means(done, published or {})], key=order):
        groups[cell.data, cell.protector, cell.options, cell.exploiter, cell.attack].append(cell)
    audited = {key[:3] for key in groups if key[3]}
    return sorted(
        (_row(cells, published or {}) for key, cells in groups.items() if key[3] or key[:3] not in audited), key=order
    )


def metrics_of(outcomes: Iterable[Outcome | None]) -> list[str]:
    """The metrics that any of the outcomes has, in the order of :data:`METRICS` (unknown ones last, by name)."""
    present = {name for outcome in outcomes if outcome for name in outcome.last}
    return [m for m in METRICS if m in present] + sorted(present - set(METRICS))


def _means(done: Sequence[CellResult], published: Published) -> list[CellResult]:
    groups: dict[tuple[str, str, Options, str, int], list[CellResult]] = defaultdict(list)
    for cell in done:
        if cell.exploiter:
            groups[cell.data, cell.protector, cell.options, cell.attack, cell.seed].append(cell)
    wanted = {key[3] for key in published}
    return [
        replace(
            cells[0],
            exploiter=Exploiter(f"mean of {len(cells)}"),
            clean=_mean([c.clean for c in cells]),
            protected=_mean([c.protected for c in cells]),
            seconds=None,
        )
        for cells in groups.values()
        if f"mean of {len(cells)}" in wanted
    ]


def _mean(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """The mean of what several exploiters reached, if all of them have it."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if len(known) < len(outcomes):
        return None

    def over(which: str) -> dict[str, float]:
        values: list[dict[str, float]] = [getattr(outcome, which) for outcome in known]
        shared = [name for name in values[0] if all(name in one for one in values)]
        return {name: math.fsum(one[name] for one in values) / len(values) for name in shared}

    return Outcome(over("last"), over("best"), over("inside"))


def _row(cells: Sequence[CellResult], published: Published) -> Row:
    first = cells[0]

    def printed_for(exploiter: str, attack: str, metric: str) -> float | None:
        exact = published.get((first.data, first.protector, str(first.options), exploiter, attack, metric))
        return published.get((first.data, first.protector, None, exploiter, attack, metric)) if exact is None else exact

    scores = {}
    for metric in metrics_of([c.protected for c in cells] + [c.clean for c in cells]):
        clean = [_percent(c.clean, "last", metric) for c in cells]
        protected = [_percent(c.protected, "last", metric) for c in cells]
        pairs = zip(clean, protected, strict=True)
        mean = Stat.of(protected)
        printed = printed_for(first.exploiter_text, first.attack or "none", metric)
        scores[metric] = Score(
            clean=Stat.of(clean),
            protected=mean,
            drop=Stat.of(c - p for c, p in pairs if c is not None and p is not None),
            best=Stat.of(_percent(c.protected, "best", metric) for c in cells),
            inside_clean=Stat.of(_percent(c.clean, "inside", metric) for c in cells),
            inside=Stat.of(_percent(c.protected, "inside", metric) for c in cells),
            published=printed,
            difference=mean.mean - printed if mean and printed is not None else None,
        )
    return Row(
        data=first.data,
        protector=first.protector,
        options=first.options,
        exploiter=first.exploiter,
        attack=first.attack,
        cells=cells,
        scores=scores,
        psnr=Stat.of(c.psnr for c in cells),
        roi_psnr=Stat.of(c.roi_psnr for c in cells),
        ssim=Stat.of(None if c.ssim is None else 100 * c.ssim for c in cells),
        seconds=Stat.of(c.seconds for c in cells),
        published_psnr=printed_for("", "none", "psnr"),
        published_ssim=printed_for("", "none", "ssim"),
        published_gap=printed_for(first.exploiter_text, first.attack, "gap"),
        similarity=_stats({name: [_times(c.similarity.get(name), 100) for c in cells] for name in SIMILARITY}),
        published_similarity={
            name: value for name in SIMILARITY if (value := printed_for("", "none", name)) is not None
        },
        cost=_stats({name: [_times(_spent(c, name), _unit(name)) for c in cells] for name in COST}),
    )


def _stats(values: Mapping[str, Sequence[float | None]]) -> dict[str, Stat]:
    return {name: stat for name, some in values.items() if (stat := Stat.of(some)) is not None}


def _spent(cell: CellResult, name: str) -> float | None:
    value = cell.spent.get(name)
    return value if isinstance(value, int | float) else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _unit(name: str) -> float:
    return 2.0**-30 if "bytes" in name else 1.0


def _percent(outcome: Outcome | None, which: str, metric: str) -> float | None:
    values: dict[str, float] = getattr(outcome, which) if outcome else {}
    return shown(metric, values[metric]) if metric in values else None
