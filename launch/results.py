"""The record of one cell of a sweep (or of one audit), as it is kept in a run directory and shown in a report."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Portion = Literal["all", "clean", "protected"]
"""Of a release: everything, or the samples that its manifest lists as unprotected or as protected."""


class Options(dict[str, Any]):
    """Settings by name, as a person gave them: plain values. Hashable, so that rows can be grouped by them."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.items())

    def without(self, *names: str) -> "Options":
        return Options({name: value for name, value in self.items() if name not in names})


@dataclass(frozen=True)
class Exploiter:
    """Who was trained: ``model`` with ``options`` over those of ``preset``, on that ``part`` of the release.

    ``authorised``: no exploiter but an authorised user's model, trained on that clean segmentation set.
    """

    model: str
    options: Options = field(default_factory=Options)
    preset: str = ""
    part: Portion = "all"
    authorised: str | None = None

    @property
    def settings(self) -> Options:
        """All but the model and the preset, as a table shows it: width=8 part=clean."""
        part = {} if self.part == "all" else {"part": self.part}
        authorised = {} if self.authorised is None else {"authorised": self.authorised}
        return Options({**self.options, **part, **authorised})

    def __str__(self) -> str:
        return f"{self.model} {self.settings}".rstrip()


@dataclass(frozen=True)
class Outcome:
    """What one exploiter reached. Metrics are shares in [0, 1] on clean test data, keyed dsc, dsc_pooled, jaccard,
    jaccard_pooled, accuracy, balanced_accuracy, auc.

    ``last``: after the last epoch (the headline). ``best``: the best epoch by the first metric. ``inside``: the
    training metric on what the exploiter was given. ``curve``: one entry an epoch, ``{"epoch": 1, "loss": ...,
    METRIC: ...}``. ``confusion``, of a classification set: how often each class (row) of the test data was taken for
    each class (column) after the last epoch. ``embedding``, where one was asked for: [x, y, class, 1 for a protected
    sample] of training samples. ``pictures``: of :func:`medveil.launch.audit.authorised.run_authorised`.
    ``protected_classes``: those of a release that has protected samples of some classes only, by their number in
    ``confusion``; else empty. ``validation``: scores on validation images, where there were any, with the ``epoch`` of
    the weights that were kept by them. ``chosen``: the attack with the setting that was chosen by these scores.
    """

    last: dict[str, float]
    best: dict[str, float] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    confusion: list[list[int]] = field(default_factory=list)
    embedding: list[list[float]] = field(default_factory=list)
    pictures: str = ""
    protected_classes: list[int] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    chosen: str = ""


@dataclass(frozen=True)
class CellResult:
    """One row group of ``results.csv``: a protector on a data set, one exploiter, one attack, one seed.

    ``exploiter`` is None, and ``attack`` empty, for a cell that only protects. ``release``: the sha256 of the
    manifest of the release, by which a sweep and an audit know the same one; ``release_name``: its folder's.
    ``clean`` is missing when no original was given. ``psnr`` (dB), ``ssim``: means over the released images against
    their originals; ``roi_psnr`` (dB): inside the masks alone. ``pictures`` names an npz with uint8 arrays
    ``original`` and ``protected`` [K, H, W, C] of a few samples, and ``masks`` {0, 1} [K, H, W, 1] where there are
    any. ``similarity``: means of
    :data:`medveil.similarity.MEASURES`. ``spent``: time and memory of protecting, as
    :meth:`medveil.launch.running.spent.Spent.metrics` tells them. ``status``: "done", or "failed: reason",
    "skipped: reason", "interrupted: reason".
    """

    data: str
    protector: str
    options: Options
    exploiter: Exploiter | None
    attack: str
    seed: int
    status: str
    clean: Outcome | None = None
    protected: Outcome | None = None
    psnr: float | None = None
    ssim: float | None = None
    seconds: float | None = None
    pictures: str | None = None
    similarity: dict[str, float] = field(default_factory=dict)
    spent: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    roi_psnr: float | None = None
    release: str = ""
    release_name: str = ""

    @property
    def model(self) -> str:
        return "" if self.exploiter is None else self.exploiter.model

    @property
    def exploiter_text(self) -> str:
        """As tables show it; empty for a cell that only protects."""
        return "" if self.exploiter is None else str(self.exploiter)

    @property
    def folder_name(self) -> str:
        """Of the folder that keeps this record: readable, and another one for every other cell."""
        who = None if self.exploiter is None else asdict(self.exploiter)
        identity = [self.data, self.protector, self.options, who, self.attack, self.seed, self.release]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        model = self.exploiter.model if self.exploiter else "release"
        words = [model, *([self.attack] if self.attack else []), str(self.seed)]
        return f"{re.sub(r'[^A-Za-z0-9_+]+', '-', '-'.join(words))}-{digest[:8]}"

    def save(self, path: Path) -> None:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(path)

    @staticmethod
    def load(path: Path) -> "CellResult":
        values: dict[str, Any] = json.loads(path.read_text())
        for side in ("clean", "protected"):
            values[side] = values[side] and Outcome(**values[side])
        values["options"] = Options(_mapping(values["options"]))
        if values["exploiter"] is not None:
            exploiter = dict(_mapping(values["exploiter"]))
            values["exploiter"] = Exploiter(**{**exploiter, "options": Options(_mapping(exploiter["options"]))})
        return CellResult(**values)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is not a mapping of options: the record is of an older version")
    return value
