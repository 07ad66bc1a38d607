"""Releases by several contributors as one, each sample as the one who protected it released it."""

import hashlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from medveil.errors import UserError
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.manifest import MANIFEST, check_intact, read_manifest
from medveil.launch.release.npz import member_info, read_header, unequal_members
from medveil.launch.running.files import check_place, make_private, open_to_others, sha256_of, sync_folder

Manifest = dict[str, Any]


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
    manifests = [read_manifest(release) for release in releases]
    for release, manifest in zip(releases, manifests, strict=True):
        check_intact(release, manifest)
    _check_alike(releases, manifests)
    owner = _owners(releases, manifests)
    partial = out.with_name(f"{out.name}.partial-{secrets.token_hex(4)}")
    make_private(partial)
    try:
        chosen = _chosen(manifests, owner)
        merged = _manifest(manifests, chosen)
        if "npz_sha256" in manifests[0]:
            merged["npz_sha256"] = _merge_npz(releases, chosen, list(owner.values()), partial)
        else:
            _merge_folders(releases, chosen, list(owner.values()), partial)
        with (partial / MANIFEST).open("w") as file:
            file.write(json.dumps(merged, indent=1, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        check_intact(partial, merged)
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
            if manifest["data"][key] != first["data"][key]:
                ours, theirs = first["data"][key], manifest["data"][key]
                raise UserError(f"{releases[0]} and {release} do not fit together: their {key} is {ours} and {theirs}")
        if ("npz_sha256" in manifest) != ("npz_sha256" in first):
            raise UserError(f"{releases[0]} and {release} do not fit together: one is an npz, the other a folder")


def _owners(releases: Sequence[Path], manifests: Sequence[Manifest]) -> dict[str, int]:
    """For each sample, the number of the release that it is taken from, in the order of the samples."""
    owner: dict[str, int] = {}
    records: dict[str, Mapping[str, Any]] = {}
    for number, manifest in enumerate(manifests):
        for record in manifest["samples"]:
            sample = record["id"]
            known = records.get(sample)
            if known is not None and known["protected"] and record["protected"]:
                ours, theirs = releases[owner[sample]], releases[number]
                raise UserError(f"{sample} is protected in {ours} and in {theirs}: one of them must leave it as it is")
            if known is not None and not known["protected"] and not record["protected"]:
                if known["sha256"] != record["sha256"]:
                    raise UserError(
                        f"{sample} differs in {releases[owner[sample]]} and {releases[number]}, unprotected"
                    )
            elif known is None or record["protected"]:
                owner[sample], records[sample] = number, record
    return owner


def _chosen(manifests: Sequence[Manifest], owner: Mapping[str, int]) -> list[dict[str, Any]]:
    """The record of each sample. Contributors' folders number their own classes: here all are numbered together."""
    by_id = [{record["id"]: record for record in manifest["samples"]} for manifest in manifests]
    records = [by_id[number][sample] for sample, number in owner.items()]
    if not _by_folder(manifests[0]):
        return records
    names = _classes(manifests)
    return [
        {**record, "target": names.index(manifests[number]["data"]["classes"][record["target"]])}
        for record, number in zip(records, owner.values(), strict=True)
    ]


def _classes(manifests: Sequence[Manifest]) -> list[str]:
    return sorted({name for manifest in manifests for name in manifest["data"]["classes"]})


def _manifest(manifests: Sequence[Manifest], chosen: list[dict[str, Any]]) -> Manifest:
    """As a release has one; the totals are those of the contributors, weighted by what each protected."""
    first = manifests[0]
    budgets = [manifest["budget"] for manifest in manifests]
    protected = sum(record["protected"] for record in chosen)
    # What one dropped another may have released, or dropped as well.
    released = {record["id"] for record in chosen}
    left = {record["id"]: record for manifest in manifests for record in manifest["dropped"]}
    dropped = [record for sample, record in left.items() if sample not in released]
    held_out = list(dict.fromkeys(sample for manifest in manifests for sample in manifest["held_out"]))
    same = {manifest["method"] for manifest in manifests}
    return {
        **{key: first[key] for key in ("format", "versions")},
        "method": same.pop() if len(same) == 1 else "several",
        "mode": first["mode"] if all(manifest["mode"] == first["mode"] for manifest in manifests) else None,
        "budget": {key: _loosest([budget[key] for budget in budgets]) for key in ("levels", "changed")},
        "merged": [
            {**{key: m.get(key) for key in ("method", "mode", "budget", "part")}, "protected": m["totals"]["protected"]}
            for m in manifests
        ],
        "data": {**first["data"], **({"classes": _classes(manifests)} if _by_folder(first) else {})},
        "totals": {
            "samples": len(chosen),
            "protected": protected,
            "unprotected": len(chosen) - protected,
            "dropped": len(dropped),
            "held_out": len(held_out),
            "psnr": _mean(manifests, "psnr"),
            "ssim": _mean(manifests, "ssim"),
        },
        "samples": chosen,
        "dropped": dropped,
        "held_out": held_out,
    }


def _by_folder(manifest: Manifest) -> bool:
    return bool(manifest["data"]["kind"] == "class-folder")


def _loosest(values: Sequence[float | None]) -> float | None:
    """The bound that holds for all; None if one promises none."""
    told = [value for value in values if value is not None]
    return max(told) if len(told) == len(values) else None


def _mean(manifests: Sequence[Manifest], name: str) -> float | None:
    told = [m["totals"] for m in manifests if m["totals"][name] is not None]
    count = sum(totals["protected"] for totals in told)
    return sum(totals[name] * totals["protected"] for totals in told) / count if count else None


def _merge_folders(releases: Sequence[Path], chosen: list[dict[str, Any]], owner: list[int], partial: Path) -> None:
    for record, number in zip(chosen, owner, strict=True):
        for key in ("file", "mask"):
            if key in record:
                target = partial / record[key]
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise UserError(f"two samples would be saved as {record[key]}: rename one of them")
                shutil.copyfile(releases[number] / record[key], target)


def _merge_npz(releases: Sequence[Path], chosen: list[dict[str, Any]], owner: list[int], partial: Path) -> str:
    """The npz, written image by image; returns its sha256."""
    name = chosen[0]["file"]
    protected = {record["id"].rpartition("/")[0] for record in chosen}
    members = {f"{split}_images.npy" for split in protected}
    archives = [zipfile.ZipFile(release / _npz_name(release)) for release in releases]
    try:
        for release, archive in zip(releases[1:], archives[1:], strict=True):
            if differing := unequal_members(archives[0], archive, members):
                raise UserError(
                    f"{releases[0]} and {release} do not fit together: {', '.join(differing)} must be equal"
                )
        by_id = {record["id"]: number for record, number in zip(chosen, owner, strict=True)}
        digests = {record["id"]: record["sha256"] for record in chosen}
        with zipfile.ZipFile(partial / name, "w", allowZip64=True) as merged:
            for member in archives[0].infolist():
                with merged.open(member_info(member), "w", force_zip64=True) as out:
                    files = [archive.open(member.filename) for archive in archives]
                    if member.filename not in members:
                        shutil.copyfileobj(files[0], out, 1 << 20)
                        continue
                    headers = [read_header(file) for file in files]
                    if any(header != headers[0] for header in headers):
                        raise UserError(f"{member.filename} has not the same shape in all releases")
                    shape = headers[0][0]
                    npy.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
                    size, split = int(np.prod(shape[1:], dtype=np.int64)), member.filename.removesuffix("_images.npy")
                    for index in range(shape[0]):
                        sample = f"{split}/{index}"
                        images = [file.read(size) for file in files]
                        image = images[by_id[sample]]
                        if hashlib.sha256(image).hexdigest() != digests[sample]:
                            raise VerificationFailed(f"{sample} is not as the manifest of its release says")
                        out.write(image)
    finally:
        for archive in archives:
            archive.close()
    with zipfile.ZipFile(partial / name) as merged:
        if (damaged := merged.testzip()) is not None:
            raise VerificationFailed(f"{damaged} does not read back")
    return sha256_of(partial / name)


def _npz_name(release: Path) -> str:
    return str(read_manifest(release)["samples"][0]["file"])
