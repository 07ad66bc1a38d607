"""What an audit finds out before it trains: is the release intact, what is it tested on, how alike are the images."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from launch.data import Source
from launch.parts import Part, opened
from launch.runs import write_arrays
from launch.verification import MANIFEST, SSIM_SAMPLE, evenly, first_damage
from medveil import metrics
from medveil.dataset import Dataset, Task
from medveil.errors import UserError
from medveil.runtime import batches
from medveil.similarity import mean_similarity, similarity

Portion = Literal["all", "clean", "protected"]
"""Of a release: everything, or the samples that its manifest lists as unprotected or as protected."""

_CHUNK = 64
_PICTURES = 5
_SIMILARITY_SAMPLE = 256


@dataclass(frozen=True)
class AuditPlan:
    """What is trained on and what is tested on.

    ``train``: the release. ``clean``: the same samples of the original, None without one. ``test``: clean images, none
    of them in the release. ``data``, ``protector``, ``options``: names for the record. ``notes``: lines for the screen.
    """

    train: Part
    clean: Part | None
    test: Part
    data: str
    protector: str
    options: str
    task: Task
    size: tuple[int, int]
    notes: tuple[str, ...]


def plan_audit(
    release: Path,
    original: str | None = None,
    test: str | None = None,
    size: int | None = None,
    part: Portion = "all",
) -> AuditPlan:
    """Check the release at ``release`` and choose the test images.

    ``part``: train on all of the release, on its unprotected samples alone ("clean"), or on the protected ones alone;
    the clean row and the test images are those of the whole release, so that the three compare.

    These are those of ``test``; else the npz's own test split; else the original's own test part; else the samples of
    the original that the release lists as held out. Raises UserError when the release is damaged, when there is nothing
    to test on, or when a test image is also in the release's training part: by id or pixels in the original, or by
    exact pixels in the release. Exact copies in a test part that the data set brings itself are left out, and noted.
    """
    manifest = read_manifest(release)
    check_intact(release, manifest)
    source = opened(str(release), size)
    train = Part(str(release), size=size)
    clean = None if original is None else _clean_part(release, original, source, manifest)
    height, width = source.data.size
    side = height if height == width else None
    chosen, own = _choose_test(release, source, manifest, original, test, side)
    training = [train] if clean is None else [train, clean]
    chosen, notes = without_overlap(chosen, own, training, _ids_in_common(chosen, train, clean, manifest))
    if part != "all":
        kept = ids_of_part(source, manifest, part)
        if not kept:
            raise UserError(f"--part {part}: the manifest of {release} lists no such sample")
        train = replace(train, ids=tuple(kept))
        notes.append(f"trained on the {part} part alone, {len(kept)} of {len(source.data)} samples")
    if clean is None:
        notes.append("no --original: there is no clean row and no PSNR or SSIM")
    return AuditPlan(
        train=train,
        clean=clean,
        test=chosen,
        data=manifest["data"]["name"],
        protector=manifest["method"],
        options=_options(manifest),
        task=source.data.task,
        size=source.data.size,
        notes=tuple(notes),
    )


class Likeness(NamedTuple):
    """``psnr`` in dB and ``ssim``: means over the images that changed (infinite and 1 when none did), SSIM and
    ``similarity`` (:data:`medveil.similarity.MEASURES`) over an even sample of these where they are many (1,024 and
    256). ``pictures``: the npz that was written.
    """

    psnr: float
    ssim: float
    pictures: Path
    similarity: dict[str, float]


def compare_images(release: Path, original: str, size: int | None, pictures: Path) -> Likeness:
    """Hold the images of the release against their originals, both at ``size`` (None: the release's own).

    Writes ``pictures``: an npz of a few changed samples, uint8 [K, H, W, C], as ``original`` and ``protected``, with
    the ``masks`` {0, 1} [K, H, W, 1] of a segmentation set. Raises UserError when a sample is missing in the original,
    or the two do not fit together.
    """
    source = opened(str(release), size)
    clean = _clean_part(release, original, source, read_manifest(release)).open()
    psnrs: list[float] = []
    changed: list[int] = []
    for indices in batches(range(len(source.data)), _CHUNK):
        pairs = zip(clean.read(indices).images, source.data.read(indices).images, strict=True)
        for index, (before, after) in zip(indices, pairs, strict=True):
            if not before.equal(after):
                changed.append(index)
                psnrs.append(metrics.psnr(before, after))
    ssims = [metrics.ssim(*pair) for pair in _pairs(clean, source.data, evenly(changed, SSIM_SAMPLE))]
    alike = [similarity(*pair) for pair in _pairs(clean, source.data, evenly(changed, _SIMILARITY_SAMPLE))]
    among = changed or range(len(source.data))
    shown = evenly(among, _PICTURES)
    kept = [data.read(shown) for data in (clean, source.data)]
    sheets: dict[str, Any] = {
        name: part.images.permute(0, 2, 3, 1).numpy()
        for name, part in zip(("original", "protected"), kept, strict=True)
    }
    if source.data.task == "segmentation":
        sheets["masks"] = kept[1].targets.permute(0, 2, 3, 1).numpy()
    write_arrays(pictures, sheets)
    ssim = float(np.mean(ssims)) if ssims else 1.0
    return Likeness(metrics.mean_psnr(psnrs), ssim, pictures, mean_similarity(alike))


def _pairs(clean: Dataset, released: Dataset, indices: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for some in batches(indices, _CHUNK):
        yield from zip(clean.read(some).images, released.read(some).images, strict=True)


def _clean_part(release: Path, original: str, source: Source, manifest: dict[str, Any]) -> Part:
    """The samples of the release in the original, in the release's order and size."""
    height, width = source.data.size
    part = Part(original, ids=tuple(original_ids(source, manifest)), size=height if height == width else None)
    clean = part.open()
    for what in ("task", "channels", "size", "num_classes"):
        theirs, ours = getattr(clean, what), getattr(source.data, what)
        if theirs != ours:
            name = what.replace("_", " of ")
            raise UserError(
                f"{original} is not what {release} was made from: its {name} is {theirs}, the release's {ours}"
            )
    return part


def read_manifest(release: Path) -> dict[str, Any]:
    """The manifest of a release. Raises UserError when there is none that can be read."""
    path = release / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        _ = manifest["method"], manifest["data"]["name"], _options(manifest), manifest["samples"], manifest["held_out"]
    except FileNotFoundError:
        raise UserError(f"{release} has no {MANIFEST}: give a release made by 'medveil protect'") from None
    except (NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(f"{path} is not the manifest of a release: fetch or make the release again") from None
    return manifest


def _options(manifest: dict[str, Any]) -> str:
    """Mode, bound and what is protected, as far as the release tells them: "strict eps=8/255 share=20"."""
    levels, part = manifest["budget"]["levels"], manifest.get("part") or {}
    classes, share = part.get("classes"), part.get("share")
    said = [manifest["mode"], f"eps={levels}/255" if levels else None]
    said += [f"classes={','.join(classes)}" if classes else None, None if share is None else f"share={share:g}"]
    return " ".join(one for one in said if one)


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


def _choose_test(
    release: Path, source: Source, manifest: dict[str, Any], original: str | None, test: str | None, side: int | None
) -> tuple[Part, bool]:
    """The test part, and whether it belongs to the data set itself (rather than being named by the user)."""
    if test is not None:
        return Part(test, "test" if opened(test, side).test is not None else "data", size=side), False
    if source.test is not None:
        return Part(str(release), "test", size=side), True
    if original is not None and opened(original, side).test is not None:
        return Part(original, "test", size=side), True
    held_out = tuple(manifest["held_out"])
    if not held_out:
        raise UserError(f"{release} has no test split and lists no held-out images: give --test DATA, clean images")
    if original is None:
        raise UserError(
            f"{release} lists {len(held_out)} held-out images but does not hold them: give --original DATA, "
            "or other clean images with --test DATA"
        )
    return Part(original, ids=held_out, size=side), True


def _ids_in_common(chosen: Part, train: Part, clean: Part | None, manifest: dict[str, Any]) -> set[str]:
    """The released ids where ``chosen`` names its samples as the release does; none where equal ids mean nothing."""
    source = opened(chosen.spec, chosen.size)
    named_alike = source.kind == "npz" and chosen.spec == train.spec
    if clean is not None:
        named_alike = named_alike or source.fingerprint == opened(clean.spec, clean.size).fingerprint
    return {record["id"] for record in manifest["samples"]} if named_alike else set()


def without_overlap(
    test: Part, own: bool, training: Sequence[Part], ids: Collection[str] = ()
) -> tuple[Part, list[str]]:
    """``test``, and notes. Exact copies of training images are left out if ``own``: the data set itself brings them.

    Raises UserError for any other image of ``test`` that is in ``training`` too, by pixels or by being one of ``ids``.
    """
    data = test.open()
    doubled = [sample for sample in data.ids if sample in ids]
    if not doubled:
        known = {digest for part in training for digest in _digests(part.open())}
        doubled = [sample for sample, digest in zip(data.ids, _digests(data), strict=True) if digest in known]
        if own and 0 < len(doubled) < len(data):
            left = set(data.ids) - set(doubled)
            kept = replace(test, ids=tuple(sample for sample in data.ids if sample in left))
            line = f"{len(doubled)} of {len(data)} test images are exact copies of training images and left out"
            return kept, [f"{line}: {doubled[0]}" + (", ..." if len(doubled) > 1 else "")]
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
