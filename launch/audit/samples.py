"""Samples of a data set by name: what a training reads and what it is tested on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from medveil.dataset import Batch, Dataset, Subset, View
from medveil.errors import UserError
from medveil.launch.data import Opener, Source
from medveil.launch.data.foreign import open_foreign
from medveil.launch.data.opening import Stamp, stamp
from medveil.launch.data.volumes import stacked
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.originals import original_ids


@dataclass(frozen=True)
class Selection:
    """Samples of a data set, by name: a plain value that can be pickled.

    ``spec``: as ``open_data`` reads it, a release too. ``split``: its samples to protect ("data") or its own test part.
    ``ids``: those samples alone, in this order; None: all. ``size``: the side in pixels, None for the data's own.
    ``labels``: the targets are the regions of each of these labels; none: all of them as one.
    ``depth``: the samples are whole volumes of so many slices (:mod:`medveil.launch.data.volumes`); 0: slices.
    ``opener``: opens it.
    """

    spec: str
    split: Literal["data", "test"] = "data"
    ids: tuple[str, ...] | None = None
    size: int | None = None
    labels: tuple[int, ...] = ()
    depth: int = 0
    opener: Opener = field(default_factory=Opener, compare=False, repr=False)

    @property
    def source(self) -> Source:
        """The data set that the samples are of."""
        return self.opener.again(self.spec, self.size)

    def open(self) -> Dataset:
        """The samples. Raises UserError when there are none of this split or one of the ids is missing."""
        source = self.source
        data = source.data if self.split == "data" else source.test
        if data is None:
            raise UserError(f"{self.spec} has no test part of its own")
        if self.labels:
            data = source.per_label(self.labels)
        data = data if self.ids is None else select(data, self.ids, self.spec)
        return stacked(data, source.volumes, self.depth, self.spec) if self.depth else data

    def fingerprint(self) -> str:
        """sha256 over content, ids and size; the same wherever the data lies."""
        source = self.source
        ids = "all" if self.ids is None else "\x1f".join(self.ids)
        text = f"{source.fingerprint}\n{self.split}\n{source.data.size}\n{ids}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ForeignSelection(Selection):
    """Images that medveil did not write, with the ids and targets of ``original`` (:mod:`medveil.launch.data`)."""

    original: str = ""

    @property
    def source(self) -> Source:
        return _foreign(self.spec, self.original, self.size, self.opener, (stamp(self.spec), stamp(self.original)))


@lru_cache(maxsize=1)
def _foreign(spec: str, original: str, size: int | None, opener: Opener, _: tuple[Stamp, Stamp]) -> Source:
    return open_foreign(Path(spec), original, size, opener)


def tested_on(spec: str, like: Selection) -> Selection:
    """What ``spec`` is tested on: its own test part, without one all of it; opened as ``like`` is."""
    whole = replace(like, spec=spec, split="data", ids=None)
    return whole if whole.source.test is None else replace(whole, split="test")


def select(data: Dataset, ids: Sequence[str], name: str) -> Dataset:
    """The samples of ``data`` called ``ids``. Raises UserError for the first that is missing."""
    index = {sample: i for i, sample in enumerate(data.ids)}
    for sample in ids:
        if sample not in index:
            raise UserError(f"{name} has no image called {sample!r}: give the data that the release was made from")
    return Subset(data, [index[sample] for sample in ids])


@dataclass(frozen=True)
class Relabelled(View):
    """``data`` (classification) with class ``i`` called ``numbers[i]``."""

    numbers: tuple[int, ...]

    def read(self, indices: Sequence[int]) -> Batch:
        images, targets, ids = self.data.read(indices)
        return Batch(images, torch.tensor(self.numbers)[targets], ids)


@dataclass(frozen=True)
class Named(View):
    """``data`` with its samples called ``names``."""

    names: tuple[str, ...]

    @property
    def ids(self) -> Sequence[str]:
        return self.names

    def read(self, indices: Sequence[int]) -> Batch:
        images, targets, _ = self.data.read(indices)
        return Batch(images, targets, [self.names[i] for i in indices])


def originals_by_id(clean: Selection, train: Selection) -> Dataset:
    """The samples of ``clean``, which has those of the whole data set of ``train`` in its order, by the ids of that."""
    return Named(clean.open(), tuple(train.source.data.ids)) if clean != train else clean.open()


def open_alike(test: Selection, train: Selection) -> Dataset:
    """The samples of ``test`` with the class numbers of ``train``: a folder numbers its classes by name, others do not.

    Raises UserError when both name their classes and the names differ.
    """
    data, theirs, ours = test.open(), test.source.class_names, train.source.class_names
    if data.task != "classification" or theirs is None or ours is None or theirs == ours:
        return data
    if sorted(theirs) != sorted(ours):
        raise UserError(
            f"{test.spec} has the classes {', '.join(theirs)}, {train.spec} has {', '.join(ours)}: they must be equal"
        )
    return Relabelled(data, tuple(ours.index(name) for name in theirs))


def clean_selection(release: Path, original: str, source: Source, manifest: Manifest, opener: Opener) -> Selection:
    """The samples of the release in the original, in the release's order and size."""
    part = Selection(original, ids=tuple(original_ids(source, manifest)), size=source.side, opener=opener)
    clean = part.open()
    for what in ("task", "channels", "size", "num_classes"):
        theirs, ours = getattr(clean, what), getattr(source.data, what)
        if theirs != ours:
            name = what.replace("_", " of ")
            raise UserError(
                f"{original} is not what {release} was made from: its {name} is {theirs}, the release's {ours}"
            )
    return part
