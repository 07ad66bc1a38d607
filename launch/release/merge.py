"""Releases by several contributors as one, each sample as the one who protected it released it."""

import os
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from medveil.errors import UserError
from medveil.launch.data.medical.datalists import DATASET, Description, datalist
from medveil.launch.release.manifest import FORMAT, MANIFEST, Manifest, Sample, check_outside_releases
from medveil.launch.release.merge_npz import merge_npz
from medveil.launch.release.private import Bound, Contribution, Named, PrivateManifest, Totals, Treated
from medveil.launch.running.files import make_private, open_to_others, sha256_of, sync_folder, sync_tree
from medveil.launch.running.places import check_place, new_token, partial_of, run_beside


@dataclass(frozen=True)
class _Release:
    """One contributor's: where it is, what it holds, and what was done to its images."""

    path: Path
    manifest: Manifest
    private: PrivateManifest

    @staticmethod
    def read(path: Path, run: Path | None) -> "_Release":
        manifest = Manifest.read(path)
        manifest.check_intact(path)
        private = PrivateManifest.needed(path, run, "which of its images are protected")
        if {sample.id for sample in private.samples} != {sample.id for sample in manifest.samples}:
            raise UserError(f"the private manifest of {path} is of other samples: name the run that it was made in")
        return _Release(path, manifest, private)

    def treated(self) -> Set[str]:
        """The ids of the samples that are protected, or lie in a file (of a volume) of which others are."""
        protected = self.private.protected
        if self.manifest.npz is not None:
            return protected
        files = {sample.file for sample in self.manifest.samples if sample.id in protected}
        return {sample.id for sample in self.manifest.samples if sample.file in files}


class _Image(NamedTuple):
    """An image as a list of a set names it: a file, or the folder of a series."""

    name: str
    mask: str | None

    @staticmethod
    def of(sample: Sample) -> "_Image":
        path = PurePosixPath(sample.file)
        return _Image(str(path if len(path.parts) == 2 else path.parent), sample.mask)


def merge(releases: Sequence[Path], out: Path, runs: Sequence[Path] = ()) -> Totals:
    """Write ``out`` from ``releases``, verify it, write what was done to it into ``.OUT.run``, and return its totals.

    An npz set is given whole by every contributor: all arrays but the protected images must be equal, and so must the
    images that two of them left unprotected. Folders may hold different samples, which are put together. ``runs``: the
    private run of each release; none: those beside the releases. Raises UserError when two releases protect one
    sample, do not fit together, or have no private manifest.
    """
    check_place(out)
    check_outside_releases(out)
    if os.path.lexists(out):
        raise UserError(f"{out} exists: choose another --out or remove it")
    if len(releases) < 2:
        raise UserError("give at least two releases to merge")
    if runs and len(runs) != len(releases):
        raise UserError(f"--run is given {len(runs)} times for {len(releases)} releases: once for each, in their order")
    given = [_Release.read(path, run) for path, run in zip_longest(releases, runs)]
    _check_alike(given)
    owner = _owners(given)
    partial = partial_of(out, new_token())
    make_private(partial)
    try:
        chosen, owners = _chosen(given, owner), [given[number] for number in owner.values()]
        npz_sha256, others = None, {}
        if given[0].manifest.npz is None:
            _merge_folders(chosen, owners, partial)
            others = _write_others(given, chosen, partial)
        else:
            paths = [one.path / one.manifest.samples[0].file for one in given]
            npz_sha256 = merge_npz(paths, chosen, list(owner.values()), partial / chosen[0].file)
        merged = _public(given, chosen, npz_sha256, others)
        merged.write(partial)
        sync_tree(partial)
        merged.check_intact(partial)
        private = _private(given, owner, sha256_of(partial / MANIFEST))
        for folder in (run_beside(out), run_beside(out) / "merged"):
            make_private(folder)
        private.write(run_beside(out) / "merged")
        open_to_others(partial)
        partial.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return private.totals


def _check_alike(given: Sequence[_Release]) -> None:
    first = given[0]
    for one in given[1:]:
        for key in ("kind", "task", "channels", "size"):
            ours, theirs = getattr(first.manifest.data, key), getattr(one.manifest.data, key)
            if theirs != ours:
                raise UserError(f"{first.path} and {one.path} do not fit together: their {key} is {ours} and {theirs}")


def _owners(given: Sequence[_Release]) -> dict[str, int]:
    """For each sample, the number of the release that it is taken from, in the order of the samples."""
    owner: dict[str, int] = {}
    digests: dict[str, str] = {}
    treated = [one.treated() for one in given]
    for number, one in enumerate(given):
        for sample in one.manifest.samples:
            known = owner.get(sample.id)
            mine = sample.id in treated[number]
            theirs = known is not None and sample.id in treated[known]
            if known is not None and mine and theirs:
                raise UserError(
                    f"{sample.id} is protected in {given[known].path} and in {one.path}: "
                    "one of them must leave it as it is"
                )
            if known is not None and not mine and not theirs:
                if digests[sample.id] != sample.sha256:
                    raise UserError(f"{sample.id} differs in {given[known].path} and {one.path}, unprotected")
            elif known is None or mine:
                owner[sample.id], digests[sample.id] = number, sample.sha256
    return owner


def _chosen(given: Sequence[_Release], owner: Mapping[str, int]) -> list[Sample]:
    """Each sample as its owner lists it; the classes, which every contributor's folder numbers, numbered together."""
    by_id = [{sample.id: sample for sample in one.manifest.samples} for one in given]
    samples = [by_id[number][name] for name, number in owner.items()]
    if given[0].manifest.data.kind != "class-folder":
        return samples
    together, own = _classes(given), [one.manifest.data.classes or () for one in given]
    return [
        replace(sample, target=together.index(own[number][sample.target])) if isinstance(sample.target, int) else sample
        for sample, number in zip(samples, owner.values(), strict=True)
    ]


def _classes(given: Sequence[_Release]) -> tuple[str, ...]:
    return tuple(sorted({name for one in given for name in one.manifest.data.classes or ()}))


def _public(
    given: Sequence[_Release], chosen: Sequence[Sample], npz_sha256: str | None, others: dict[str, str]
) -> Manifest:
    data = given[0].manifest.data
    licences = {one.manifest.licence for one in given}
    return Manifest(
        format=FORMAT,
        data=replace(data, classes=_classes(given)) if data.kind == "class-folder" else data,
        samples=tuple(chosen),
        npz_sha256=npz_sha256,
        others=others,
        licence=licences.pop() if len(licences) == 1 else None,
    )


def _private(given: Sequence[_Release], owner: Mapping[str, int], public: str) -> PrivateManifest:
    """The totals are those of the contributors, weighted by what each protected."""
    privates = [one.private for one in given]
    by_id: list[dict[str, Treated]] = [{sample.id: sample for sample in private.samples} for private in privates]
    samples = tuple(by_id[number][name] for name, number in owner.items())
    # What one dropped another may have released, or dropped as well.
    left = {one.id: one for private in privates for one in private.dropped}
    dropped = tuple(one for name, one in left.items() if name not in owner)
    held_out = tuple(dict.fromkeys(name for private in privates for name in private.held_out))
    methods, modes = {private.method for private in privates}, {private.mode for private in privates}
    protected = sum(sample.protected for sample in samples)
    return PrivateManifest(
        format=FORMAT,
        public=public,
        data=Named(privates[0].data.name),
        method=methods.pop() if len(methods) == 1 else "several",
        mode=modes.pop() if len(modes) == 1 else None,
        budget=Bound(
            _loosest([private.budget.levels for private in privates]),
            _loosest([private.budget.changed for private in privates]),
        ),
        merged=tuple(Contribution(p.method, p.mode, p.budget, p.part, p.totals.protected) for p in privates),
        totals=Totals(
            samples=len(samples),
            protected=protected,
            unprotected=len(samples) - protected,
            dropped=len(dropped),
            held_out=len(held_out),
            psnr=_mean([(p.totals.psnr, p.totals.protected) for p in privates]),
            ssim=_mean([(p.totals.ssim, p.totals.protected) for p in privates]),
        ),
        versions=privates[0].versions,
        samples=samples,
        dropped=dropped,
        held_out=held_out,
    )


N = TypeVar("N", int, float)


def _loosest(values: Sequence[N | None]) -> N | None:
    """The bound that holds for all; None if one promises none."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    """The mean of values with how often each counts."""
    known = [(value, count) for value, count in values if value is not None]
    whole = sum(count for _, count in known)
    return sum(value * count for value, count in known) / whole if whole else None


def _merge_folders(chosen: Sequence[Sample], owners: Sequence[_Release], partial: Path) -> None:
    copied: dict[str, str] = {}
    for sample, one in zip(chosen, owners, strict=True):
        for name, digest in sample.files().items():
            if copied.get(name) == digest and (sample.plane is not None or name == sample.mask):
                continue  # the planes of a volume share its file, and the channels of a case its mask
            copied[name] = digest
            target = partial / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                free = not target.exists()
            except (FileExistsError, NotADirectoryError):
                free = False  # another sample's file has the name of this one's folder
            if not free:
                raise UserError(f"two samples would be saved as {name}: rename one of them")
            shutil.copyfile(one.path / name, target)


def _write_others(given: Sequence[_Release], chosen: Sequence[Sample], partial: Path) -> dict[str, str]:
    """What programs that train on the set want to be told of all of it: names of files, and their sha256."""
    if not any(one.manifest.others for one in given):
        return {}
    told = [Description.read(one.path) if DATASET in one.manifest.others else None for one in given]
    for one, about in zip(given, told, strict=True):
        if about != told[0]:
            raise UserError(f"{given[0].path} and {one.path} do not fit together: their {DATASET} must say the same")
    images = list(dict.fromkeys(_Image.of(sample) for sample in chosen))
    for name, content in (datalist(images) if told[0] is None else told[0].of(images)).items():
        (partial / name).write_text(content)
    return {path.name: sha256_of(path) for path in sorted(partial.glob("*.json"))}
