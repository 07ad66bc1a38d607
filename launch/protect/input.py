"""What a protect job is about, found out before anything is written."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medveil.dataset import Dataset, Subset
from medveil.errors import UserError
from medveil.launch.data import Opener, Source, split_holdout
from medveil.launch.data.groups import groups_of
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.methods import METHOD_OF_TASK, METHODS, protector_of, settings_of
from medveil.launch.protect.part import Chosen, choose
from medveil.launch.release.manifest import check_outside_releases
from medveil.launch.running.places import check_apart, check_place
from medveil.protector import Empty, Protector


@dataclass(frozen=True)
class Input:
    """``indices``: the samples of ``source`` that are fitted and released; ``part`` of them is protected (None: all).

    ``held_out``: ids of the others. ``empty``: what becomes of samples with nothing to protect. ``native``: whether
    images are released at the size and depth of their own files.
    """

    source: Source
    empty: Empty
    indices: list[int]
    held_out: list[str]
    part: Chosen | None
    native: bool

    @property
    def fit(self) -> Dataset:
        """What the method is fitted on."""
        return Subset(self.source.data, self.indices) if self.part is None else self.part.fit


def check_job(job: ProtectJob) -> None:
    """Raise UserError for what is wrong with the job whatever its data holds."""
    settings_of(job.method)
    check_place(job.out)
    check_apart(job.out, job.data, job.part.support)
    check_outside_releases(job.out)
    if os.path.lexists(job.out) and not job.run_root.is_dir():
        raise other_origin(job)
    make_protector(job, "cpu" if job.preset == "auto" else job.preset, 0)


def other_origin(job: ProtectJob) -> UserError:
    return UserError(
        f"{job.out} exists and does not come from this data and these settings: choose another --out or remove it"
    )


def make_protector(job: ProtectJob, preset: str | None, seed: int) -> Protector:
    """The job's method with its options over the preset's. Raises UserError for options that it refuses."""
    options = {**(settings_of(job.method).presets[preset] if preset else {}), **job.options}
    return protector_of(job.method)(**{"seed": seed, **options})


def method_by_opening(data: str, opener: Opener, size: int | None) -> str:
    """The method of whoever names none, where the look of ``data`` tells nothing. Raises UserError if none can."""
    return METHOD_OF_TASK[opener.open(data, size=size).data.task]


def open_input(job: ProtectJob, opener: Opener) -> Input:
    """The job's data. Where no seed is told, the part is chosen again once one is drawn.

    Raises UserError for data that does not fit the job.
    """
    source = opener.open(job.data, size=job.size, splits=job.splits, alone=job.part.support is not None)
    volumes = any(file.planes > 1 for file in source.files)
    if volumes and job.empty == "drop":
        raise UserError(f"--empty drop is for single images: {job.data} has volumes, which keep their slices")
    empty = job.empty or ("drop" if source.data.task == "segmentation" and not volumes else "release")
    indices, held_out = _indices(job, source, empty)
    part = choose(source, indices, job.part, job.seed or 0, opener) if job.part else None
    return Input(source, empty, indices, held_out, part, _is_native(job, source))


def _is_native(job: ProtectJob, source: Source) -> bool:
    """Raises UserError for medical files that were to become squares."""
    if job.size is not None and any(file.kind != "picture" for file in source.files):
        raise UserError(f"--size {job.size} would resample {job.data}: medical files keep their size; leave it out")
    return job.size is None and bool(source.files)


def headlines(job: ProtectJob, given: Input, chosen: Mapping[str, Any]) -> list[str]:
    """Lines for the screen before the fit. ``chosen``: seed, threads, precision and preset."""
    height, width = given.source.data.size
    preset = f", preset {chosen['preset']}" if chosen["preset"] else ""
    if chosen["preset"] == "demo":
        preset += " (a demonstration, too short to judge the method by)"
    seed = "a secret seed" if job.seed is None else f"seed {job.seed}"
    held = f", {len(given.held_out)} held out" if given.held_out else ""
    other = given.native and any(one.size != (width, height) for one in given.source.origins)
    own = ", released at their own size," if other else ""
    line = (
        f"protecting {len(given.indices)} images of {width}x{height}{own} from {given.source.name} with {job.method}"
        f"{preset}{held}; {seed}, {chosen['threads']} threads, {chosen['precision']}"
    )
    return [*given.source.notes, line, *([] if given.part is None else given.part.notes)]


def _indices(job: ProtectJob, source: Source, empty: Empty) -> tuple[list[int], list[str]]:
    """The samples to fit and release, and the ids that are held out."""
    task = source.data.task
    if task not in settings_of(job.method).tasks:
        others = ", ".join(name for name, settings in METHODS.items() if task in settings.tasks)
        raise UserError(f"{job.data} is a {task} set, which {job.method} cannot protect; these can: {others}")
    if source.kind == "npz":
        if job.holdout:
            raise UserError(f"--holdout is for folders: {job.data} keeps its own test split")
        if empty == "drop":
            raise UserError(f"--empty drop is for folders: {job.data} keeps its shapes")
    if not job.holdout:
        return list(range(len(source.data))), []
    train, test = split_holdout(source.data, job.holdout, job.holdout_seed, grouping(job, source))
    return train, [source.data.ids[i] for i in test]


def grouping(job: ProtectJob, source: Source) -> Mapping[str, str] | None:
    """The group of each sample of ``source``, those of which are never parted; None where each is its own."""
    groups = None if job.groups is None else groups_of(source.data.ids, job.groups)
    return source.grouped(groups)
