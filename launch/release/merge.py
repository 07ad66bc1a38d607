"""Releases by several contributors as one, each sample as the one who protected it released it."""

import hashlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.lib import format as npy

from medveil.errors import UserError
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.manifest import Bound, Contribution, Manifest, Sample, Totals
from medveil.launch.release.npz import member_info, read_header, unequal_members
from medveil.launch.running.files import check_place, make_private, open_to_others, sha256_of, sync_folder


def merge(releases: Sequence[Path], out: Path) -> Manifest:
    """Write ``out`` from ``releases``, verify it and return its manifest.

    An npz set is given whole by every contributor: all arrays but the protected images must be equal, and so must the
    images that two of them left unprotected. Folders may hold different samples, which are put together. Raises
    UserError when two releases protect one sample, or do not fit together.
    """
    if os.path.lexists(out):
        raise UserError(f"{out} exists: choose another --out or remove it")
    if len(releases) < 2:
        raise UserError("give at least two releases to merge")
    check_place(out)
    manifests = [Manifest.read(release) for release in releases]
    for release, manifest in zip(releases, manifests, strict=True):
        manifest.check_intact(release)
    _check_alike(releases, manifests)
    owner = _owners(releases, manifests)
    partial = out.with_name(f"{out.name}.partial-{secrets.token_hex(4)}")
    make_private(partial)
    try:
        chosen = _chosen(manifests, owner)
        npz_sha256 = None
        if manifests[0].npz is None:
            _merge_folders(releases, chosen, list(owner.values()), partial)
        else:
            npz_sha256 = _merge_npz(releases, manifests, chosen, list(owner.values()), partial)
        merged = _manifest(manifests, chosen, npz_sha256)
        merged.write(partial)
        merged.check_intact(partial)
        open_to_others(partial)
        partial.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return merged


def _check_alike(releases: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    first = manifests[0]
    for release, manifest in zip(releases[1:], manifests[1:], strict=True):
        for key in ("kind", "task", "channels", "size"):
            ours, theirs = getattr(first.data, key), getattr(manifest.data, key)
            if theirs != ours:
                raise UserError(f"{releases[0]} and {release} do not fit together: their {key} is {ours} and {theirs}")


def _owners(releases: Sequence[Path], manifests: Sequence[Manifest]) -> dict[str, int]:
    """For each sample, the number of the release that it is taken from, in the order of the samples."""
    owner: dict[str, int] = {}
    found: dict[str, Sample] = {}
    for number, manifest in enumerate(manifests):
        for sample in manifest.samples:
            known = found.get(sample.id)
            if known is not None and known.protected and sample.protected:
                ours, theirs = releases[owner[sample.id]], releases[number]
                raise UserError(
                    f"{sample.id} is protected in {ours} and in {theirs}: one of them must leave it as it is"
                )
            if known is not None and not known.protected and not sample.protected:
                if known.sha256 != sample.sha256:
                    ours, theirs = releases[owner[sample.id]], releases[number]
                    raise UserError(f"{sample.id} differs in {ours} and {theirs}, unprotected")
            elif known is None or sample.protected:
                owner[sample.id], found[sample.id] = number, sample
    return owner


def _chosen(manifests: Sequence[Manifest], owner: Mapping[str, int]) -> list[Sample]:
    """Each sample as its owner lists it; the classes, which every contributor's folder numbers, numbered together."""
    by_id = [{sample.id: sample for sample in manifest.samples} for manifest in manifests]
    samples = [by_id[number][name] for name, number in owner.items()]
    if manifests[0].data.kind != "class-folder":
        return samples
    together, own = _classes(manifests), [manifest.data.classes or () for manifest in manifests]
    return [
        replace(sample, target=together.index(own[number][sample.target])) if isinstance(sample.target, int) else sample
        for sample, number in zip(samples, owner.values(), strict=True)
    ]


def _classes(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    return tuple(sorted({name for manifest in manifests for name in manifest.data.classes or ()}))


def _manifest(manifests: Sequence[Manifest], chosen: Sequence[Sample], npz_sha256: str | None) -> Manifest:
    """As a release has one; the totals are those of the contributors, weighted by what each protected."""
    first = manifests[0]
    protected = sum(sample.protected for sample in chosen)
    # What one dropped another may have released, or dropped as well.
    released = {sample.id for sample in chosen}
    left = {one.id: one for manifest in manifests for one in manifest.dropped}
    dropped = tuple(one for name, one in left.items() if name not in released)
    held_out = tuple(dict.fromkeys(name for manifest in manifests for name in manifest.held_out))
    same = {manifest.method for manifest in manifests}
    return Manifest(
        format=first.format,
        method=same.pop() if len(same) == 1 else "several",
        mode=first.mode if all(manifest.mode == first.mode for manifest in manifests) else None,
        budget=Bound(
            _loosest([manifest.budget.levels for manifest in manifests]),
            _loosest([manifest.budget.changed for manifest in manifests]),
        ),
        merged=tuple(Contribution(m.method, m.mode, m.budget, m.part, m.totals.protected) for m in manifests),
        data=replace(first.data, classes=_classes(manifests)) if first.data.kind == "class-folder" else first.data,
        totals=Totals(
            samples=len(chosen),
            protected=protected,
            unprotected=len(chosen) - protected,
            dropped=len(dropped),
            held_out=len(held_out),
            psnr=_mean([(m.totals.psnr, m.totals.protected) for m in manifests]),
            ssim=_mean([(m.totals.ssim, m.totals.protected) for m in manifests]),
        ),
        versions=first.versions,
        samples=tuple(chosen),
        dropped=dropped,
        held_out=held_out,
        npz_sha256=npz_sha256,
    )


N = TypeVar("N", int, float)


def _loosest(values: Sequence[N | None]) -> N | None:
    """The bound that holds for all; None if one promises none."""
    told = [value for value in values if value is not None]
    return max(told) if len(told) == len(values) else None


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    """The mean of values with how often each counts."""
    told = [(value, count) for value, count in values if value is not None]
    whole = sum(count for _, count in told)
    return sum(value * count for value, count in told) / whole if whole else None


def _merge_folders(releases: Sequence[Path], chosen: Sequence[Sample], owner: Sequence[int], partial: Path) -> None:
    for sample, number in zip(chosen, owner, strict=True):
        for name in sample.files():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise UserError(f"two samples would be saved as {name}: rename one of them")
            shutil.copyfile(releases[number] / name, target)


def _merge_npz(
    releases: Sequence[Path],
    manifests: Sequence[Manifest],
    chosen: Sequence[Sample],
    owner: Sequence[int],
    partial: Path,
) -> str:
    """The npz, written image by image; returns its sha256."""
    name = chosen[0].file
    protected = {sample.id.rpartition("/")[0] for sample in chosen}
    members = {f"{split}_images.npy" for split in protected}
    paths = [release / manifest.samples[0].file for release, manifest in zip(releases, manifests, strict=True)]
    by_id = {sample.id: (number, sample.sha256) for sample, number in zip(chosen, owner, strict=True)}
    with ExitStack() as stack:
        archives = [stack.enter_context(_archive(path)) for path in paths]
        for path, archive in zip(paths, archives, strict=True):
            if lacking := members - set(archive.namelist()):
                raise UserError(f"{path} has no {min(lacking)}, of which its manifest lists samples: make it again")
        for release, archive in zip(releases[1:], archives[1:], strict=True):
            if differing := unequal_members(archives[0], archive, members):
                raise UserError(
                    f"{releases[0]} and {release} do not fit together: {', '.join(differing)} must be equal"
                )
        merged = stack.enter_context(zipfile.ZipFile(partial / name, "w", allowZip64=True))
        for member in archives[0].infolist():
            with merged.open(member_info(member), "w", force_zip64=True) as out:
                files = [archive.open(member.filename) for archive in archives]
                if member.filename not in members:
                    shutil.copyfileobj(files[0], out, 1 << 20)
                else:
                    _merge_images(files, paths, member.filename.removesuffix("_images.npy"), by_id, out)
    with zipfile.ZipFile(partial / name) as merged:
        if (damaged := merged.testzip()) is not None:
            raise VerificationFailed(f"{damaged} does not read back")
    return sha256_of(partial / name)


def _merge_images(
    files: Sequence[IO[bytes]],
    paths: Sequence[Path],
    split: str,
    by_id: Mapping[str, tuple[int, str]],
    out: IO[bytes],
) -> None:
    """The images of one split, each from its owner's file."""
    try:
        headers = [read_header(file) for file in files]
    except ValueError as error:
        raise UserError(f"{split}_images cannot be read ({error}): make these releases again") from None
    shape, fortran, dtype = headers[0]
    if any(header != headers[0] for header in headers):
        raise UserError(f"{split}_images has not the same shape in all releases")
    if fortran or dtype != np.uint8 or not shape:
        raise UserError(f"{paths[0]}: {split}_images is {dtype} {shape}, not images as a release has them")
    npy.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    size = int(np.prod(shape[1:], dtype=np.int64))
    for index in range(shape[0]):
        images = [file.read(size) for file in files]
        number, digest = by_id.get(f"{split}/{index}", (0, ""))
        if hashlib.sha256(images[number]).hexdigest() != digest:
            raise UserError(f"{paths[number]}: {split}/{index} is not as the manifest says: make this release again")
        out.write(images[number])


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} cannot be read ({error}): make this release again") from None
