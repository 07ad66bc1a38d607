"""What an audit finds out before it trains: is the release intact, what is it tested on, how alike are the images."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medveil.dataset import Dataset, Task
from medveil.errors import UserError
from medveil.launch.audit.samples import ForeignSelection, Selection, clean_selection, tested_on
from medveil.launch.data import Opener
from medveil.launch.release.manifest import MANIFEST, Manifest
from medveil.launch.release.originals import ids_of_part, original_ids
from medveil.launch.release.private import PrivateManifest
from medveil.launch.results import Options, Portion
from medveil.runtime import batches

_CHUNK = 64
_ALIKE = 255**2 / 10**2.5
"""Mean squared difference in grey levels below which two images of one name count as one: a PSNR of 25 dB."""

UNKNOWN = "unknown"
"""What the method of a release is called whose private manifest is not at hand."""


@dataclass(frozen=True)
class AuditPlan:
    """What is trained on and what is tested on.

    ``train``: the release. ``clean``: the same samples of the original, None without one. ``test``: clean images, none
    of them in the release. ``data``, ``protector``, ``options``: names for the record. ``notes``: lines for the screen.
    """

    train: Selection
    clean: Selection | None
    test: Selection
    data: str
    protector: str
    options: Options
    task: Task
    size: tuple[int, int]
    notes: tuple[str, ...]


def plan_audit(
    release: Path,
    original: str | None = None,
    test: str | None = None,
    size: int | None = None,
    part: Portion = "all",
    opener: Opener | None = None,
    run: Path | None = None,
) -> AuditPlan:
    """Check the release at ``release`` and choose the test images. Without a manifest, its images are paired by name
    with those of ``original``, whose labels they take.

    ``part``: train on all of the release, on its unprotected samples alone ("clean"), or on the protected ones alone;
    the clean row and the test images are those of the whole release, so that the three compare. ``run``: the private
    run of the release, which knows what is protected, held out and by which method (None: the one beside it, if any).

    These are those of ``test``; else the npz's own test split; else the original's own test part; else the samples of
    the original that the private manifest lists as held out. Raises UserError when the release is damaged, when there
    is nothing to test on, or when a test image is also in the release's training part: by id or pixels in the original,
    or by exact pixels in the release. Exact copies in a test part that the data set brings are left out, and noted.
    """
    opener = opener or Opener()
    if original is not None and not (release / MANIFEST).is_file():
        return _plan_foreign(release, original, test, size, part, opener)
    manifest, private = Manifest.read(release), PrivateManifest.find(release, run)
    manifest.check_intact(release)
    train = Selection(str(release), size=size, opener=opener)
    source = train.source
    clean = None if original is None else clean_selection(release, original, source, manifest, opener)
    chosen, own = _choose_test(train, private, original, test)
    _refuse_other_task(chosen, train)
    training = [train] if clean is None else [train, clean]
    chosen, notes = without_overlap(chosen, own, training, _ids_in_common(chosen, train, clean, manifest))
    if clean is None and test is not None:
        _refuse_originals(chosen, train, original_ids(source, manifest))
    if part != "all":
        private = PrivateManifest.needed(release, run, "which of its images are protected, as --part asks")
        ids = ids_of_part(source, manifest, private, part)
        if not ids:
            raise UserError(f"--part {part}: {release} has no such sample")
        train = replace(train, ids=tuple(ids))
        notes.append(f"trained on the {part} part alone, {len(ids)} of {len(source.data)} samples")
    if clean is None:
        notes.append("no --original: there is no clean row and no PSNR or SSIM")
    return AuditPlan(
        train=train,
        clean=clean,
        test=chosen,
        data=release.resolve().name if private is None else private.data.name,
        protector=UNKNOWN if private is None else private.method,
        options=Options() if private is None else private.options,
        task=source.data.task,
        size=source.data.size,
        notes=tuple(notes),
    )


def _refuse_other_task(test: Selection, train: Selection) -> None:
    theirs, ours = test.source.data.task, train.source.data.task
    if theirs != ours:
        raise UserError(
            f"{test.spec} is a {theirs} set and {train.spec} a {ours} set: give test images of the same task"
        )


def _refuse_originals(test: Selection, train: Selection, ids: Sequence[str]) -> None:
    """Raise UserError when images of ``test`` are those that the release was made from: of the same id in the original
    (``ids``, in the release's order), and much the same to look at.
    """
    data, released = test.open(), train.open()
    if (data.channels, data.size) != (released.channels, released.size):
        return
    place = {sample: i for i, sample in enumerate(ids)}
    alike = [(i, place[sample]) for i, sample in enumerate(data.ids) if sample in place]
    found = []
    for some in batches(alike, _CHUNK):
        ours, theirs = data.read([i for i, _ in some]).images, released.read([j for _, j in some]).images
        error = (ours.float() - theirs.float()).square().flatten(1).mean(1)
        found += [data.ids[i] for (i, _), value in zip(some, error.tolist(), strict=True) if value < _ALIKE]
    if found:
        raise UserError(
            f"{len(found)} test images of {test.spec} are the originals of released ones (first: {found[0]}), which a "
            f"model must not be tested on: give --original {test.spec} to test on what was held out, or other images"
        )


def _plan_foreign(
    folder: Path, original: str, test: str | None, size: int | None, part: Portion, opener: Opener
) -> AuditPlan:
    """Of images that medveil did not write: tested on ``test``, else on originals without a protected image."""
    if part != "all":
        raise UserError(f"--part {part}: {folder} has no manifest that tells which of its images are protected")
    train = ForeignSelection(str(folder), size=size, opener=opener, original=original)
    source = train.source
    clean = Selection(original, ids=tuple(source.data.ids), size=source.side, opener=opener)
    whole, taken = clean.source, set(source.data.ids)
    rest = tuple(sample for sample in whole.data.ids if sample not in taken)
    notes = [f"{folder} has no manifest: {len(taken)} of its images pair by name with {original}"]
    if test is not None:
        chosen = tested_on(test, clean)
    elif whole.test is not None:
        chosen = replace(clean, split="test", ids=None)
    elif len(rest) > 1:
        chosen = replace(clean, ids=rest)
        notes.append(f"tested on the {len(rest)} images of {original} that have no protected one")
    else:
        raise UserError(f"every image of {original} is in {folder}: give --test DATA, other clean images")
    _refuse_other_task(chosen, train)
    chosen, more = without_overlap(chosen, test is None, [train, clean], taken if chosen.spec == original else ())
    return AuditPlan(
        train=train,
        clean=clean,
        test=chosen,
        data=whole.name,
        protector=folder.resolve().stem,
        options=Options(),
        task=source.data.task,
        size=source.data.size,
        notes=(*notes, *more),
    )


def _choose_test(
    train: Selection, private: PrivateManifest | None, original: str | None, test: str | None
) -> tuple[Selection, bool]:
    """The test part, and whether it belongs to the data set itself (rather than being named by the user)."""
    like = replace(train, size=train.source.side)
    if test is not None:
        return tested_on(test, like), False
    if train.source.test is not None:
        return replace(like, split="test"), True
    whole = None if original is None else replace(like, spec=original)
    if whole is not None and whole.source.test is not None:
        return replace(whole, split="test"), True
    held_out = () if private is None else private.held_out
    if not held_out:
        unknown = "no held-out images are known: give --run DIR, its private run, or"
        known = unknown if private is None else "none held out: give"
        raise UserError(f"{train.spec} has no test split and {known} --test DATA, clean images")
    if whole is None:
        raise UserError(
            f"{len(held_out)} images were held out of {train.spec}, which does not hold them: give --original DATA, "
            "or other clean images with --test DATA"
        )
    return replace(whole, ids=held_out), True


def _ids_in_common(chosen: Selection, train: Selection, clean: Selection | None, manifest: Manifest) -> set[str]:
    """The released ids where ``chosen`` names its samples as the release does; none where equal ids mean nothing."""
    source = chosen.source
    named_alike = source.kind == "npz" and chosen.spec == train.spec
    if clean is not None:
        named_alike = named_alike or source.fingerprint == clean.source.fingerprint
    return {sample.id for sample in manifest.samples} if named_alike else set()


def without_overlap(
    test: Selection, own: bool, training: Sequence[Selection], ids: Collection[str] = ()
) -> tuple[Selection, list[str]]:
    """``test``, and notes. Exact copies of training images are left out if ``own``: the data set itself brings them.

    Raises UserError for any other image of ``test`` that is in ``training`` too, by pixels or by being one of ``ids``.
    """
    data = test.open()
    doubled = [sample for sample in data.ids if sample in ids]
    if not doubled:
        known = {digest for one in training for digest in _digests(one.open())}
        doubled = [sample for sample, digest in zip(data.ids, _digests(data), strict=True) if digest in known]
        if own and 0 < len(doubled) < len(data):
            left = set(data.ids) - set(doubled)
            rest = replace(test, ids=tuple(sample for sample in data.ids if sample in left))
            line = f"{len(doubled)} of {len(data)} test images are exact copies of training images and left out"
            return rest, [f"{line}: {doubled[0]}" + (", ..." if len(doubled) > 1 else "")]
    if doubled:
        raise UserError(
            f"{len(doubled)} test images of {test.spec} are also in the training part (first: {doubled[0]}): "
            "give --test DATA without them"
        )
    return test, []


def _digests(data: Dataset) -> Iterator[str]:
    """A hash of each image's pixels."""
    for indices in batches(range(len(data)), _CHUNK):
        for image in data.read(indices).images:
            yield hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
