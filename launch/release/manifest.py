"""The manifest of a release: what it holds, and whether its files are as it says."""

import json
from pathlib import Path
from typing import Any

from medveil.errors import UserError
from medveil.launch.data import Source
from medveil.launch.results import Options, Portion
from medveil.launch.running.files import sha256_of

MANIFEST = "manifest.json"


def first_damage(out: Path) -> str | None:
    """The first file of the release at ``out`` that is not as its manifest says, or None."""
    manifest = json.loads((out / MANIFEST).read_text())
    samples = manifest["samples"]
    if "npz_sha256" in manifest:
        listed = {(samples[0]["file"], manifest["npz_sha256"])}
    else:
        listed = {(r["file"], r["sha256"]) for r in samples}
        listed |= {(r["mask"], r["mask_sha256"]) for r in samples if "mask" in r}
    for name, digest in sorted(listed):
        if not (out / name).is_file() or sha256_of(out / name) != digest:
            return str(name)
    return None


def read_manifest(release: Path) -> dict[str, Any]:
    """The manifest of a release. Raises UserError when there is none that can be read."""
    path = release / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        _ = (
            manifest["method"],
            manifest["data"]["name"],
            options_of(manifest),
            manifest["samples"],
            manifest["held_out"],
        )
    except FileNotFoundError:
        raise UserError(f"{release} has no {MANIFEST}: give a release made by 'medveil protect'") from None
    except (NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(f"{path} is not the manifest of a release: fetch or make the release again") from None
    return manifest


def options_of(manifest: dict[str, Any]) -> Options:
    """Mode, bound and what is protected, as far as the release tells them: mode=strict eps=8/255 share=20."""
    levels, part = manifest["budget"]["levels"], manifest.get("part") or {}
    classes, share = part.get("classes"), part.get("share")
    told = {
        "mode": manifest["mode"],
        "eps": f"{levels}/255" if levels else None,
        "classes": ",".join(classes) if classes else None,
        "share": None if share is None else f"{share:g}",
    }
    return Options({name: value for name, value in told.items() if value is not None})


def check_intact(release: Path, manifest: dict[str, Any]) -> None:
    """Raise UserError when a file of the release is missing, is not as the manifest says, or is not listed in it."""
    damaged = first_damage(release)
    if damaged is not None:
        raise UserError(f"{release / damaged} is not as the manifest says: fetch or make the damaged release again")
    listed = {r["file"] for r in manifest["samples"]} | {r["mask"] for r in manifest["samples"] if "mask" in r}
    for path in sorted(release.rglob("*")):
        name = path.relative_to(release).as_posix()
        if path.is_file() and not path.name.startswith(".") and name != MANIFEST and name not in listed:
            raise UserError(f"{path} is not listed in the manifest: remove it")


def original_ids(source: Source, manifest: dict[str, Any]) -> list[str]:
    """The id in the original of each sample of the release, in the release's order."""
    if source.kind == "npz":
        return list(source.data.ids)
    by_file = {record["file"]: record["id"] for record in manifest["samples"]}
    return [by_file[f"images/{sample}.png"] for sample in source.data.ids]


def ids_of_part(source: Source, manifest: dict[str, Any], part: Portion) -> list[str]:
    """The release's own ids of the samples that its manifest says are protected, or clean."""
    wanted = {record["id"] for record in manifest["samples"] if record["protected"] == (part == "protected")}
    names = original_ids(source, manifest)
    return [sample for sample, name in zip(source.data.ids, names, strict=True) if name in wanted]


def classes_of_part(source: Source, manifest: dict[str, Any]) -> list[int]:
    """The classes of which the manifest lists protected samples, as the release at ``source`` numbers them, ascending.

    Empty when these are all of its classes, when a share of the samples was chosen instead, and for data without one
    class for each image.
    """
    part = manifest.get("part") or {}
    if source.data.task != "classification" or part.get("share") is not None:
        return []
    present = {record["target"] for record in manifest["samples"]}
    found = {record["target"] for record in manifest["samples"] if record["protected"]}
    if found == present:
        return []
    if source.kind != "class-folder":
        return sorted(found)
    # A folder numbers its classes by name, whatever the data that it was made from called them.
    names, ours = manifest["data"]["classes"], source.class_names or []
    return sorted(ours.index(names[target]) for target in found)
