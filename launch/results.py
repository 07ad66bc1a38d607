"""The record of one cell of a sweep (or of one audit), as it is kept in a run directory and shown in a report."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from medveil.launch.reading import STORED, read_as

Portion = Literal["all", "clean", "protected"]
"""Of a release: everything, or the samples that its manifest lists as unprotected or as protected."""


Number = Annotated[int, Field(ge=-(2**53), le=2**53)] | Annotated[float, Field(allow_inf_nan=True)]
"""Of a curve: that of a training that ran away holds what is no number."""

Decibel = Annotated[float, Field(ge=-1e9, allow_inf_nan=True)]
"""Infinite for equal images."""

Count = Annotated[int, Field(ge=0, le=2**53)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Options(dict[str, Any]):
    """Settings by name, as a person gave them: plain values. Hashable, so that rows can be grouped by them."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(cls, handler(dict[str, str | int | float | bool | None]))

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

    __pydantic_config__ = STORED

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
    jaccard_pooled, accuracy, balanced_accuracy, auc; of label maps and volumes also dsc_label_3, dsc_volume and such.

    ``last``: after the last epoch (the headline). ``best``: the best epoch by the first metric. ``inside``: the
    training metric on what the exploiter was given. ``curve``: one entry an epoch, ``{"epoch": 1, "loss": ...,
    METRIC: ...}``. ``confusion``, of a classification set: how often each class (row) of the test data was taken for
    each class (column) after the last epoch. ``embedding``, where one was asked for: [x, y, class, 1 for a protected
    sample] of training samples. ``pictures``: of :func:`medveil.launch.audit.authorised.run_authorised`.
    ``protected_classes``: those of a release that has protected samples of some classes only, by their number in
    ``confusion``; else empty. ``validation``: scores on validation images, where there were any, with the ``epoch`` of
    the weights that were kept by them. ``chosen``: the attack with the setting that was chosen by these scores.
    ``training``: how long and how wide it was: epochs or iterations, batch_size, and width where the model has one.
    """

    __pydantic_config__ = STORED

    last: dict[str, float]
    best: dict[str, float] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, Number]] = field(default_factory=list)
    seconds: float = 0.0
    confusion: list[list[Count]] = field(default_factory=list)
    embedding: list[Annotated[list[float], Field(min_length=4, max_length=4)]] = field(default_factory=list)
    pictures: str = ""
    protected_classes: list[Count] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    chosen: str = ""
    training: dict[str, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("confusion must have a row and a column for each class")


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

    __pydantic_config__ = STORED

    data: str
    protector: str
    options: Options
    exploiter: Exploiter | None
    attack: str
    seed: Seed
    status: str
    clean: Outcome | None = None
    protected: Outcome | None = None
    psnr: Decibel | None = None
    ssim: float | None = None
    seconds: float | None = None
    pictures: str | None = None
    similarity: dict[str, Decibel] = field(default_factory=dict)
    spent: dict[str, Number | str | None] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    roi_psnr: Decibel | None = None
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

    @staticmethod
    def load(path: Path) -> "CellResult":
        """The record in the file ``path``. Raises UserError for a file that is none."""
        return read_as(CellResult, path, "a record of a run", "remove it or run its cell again")
