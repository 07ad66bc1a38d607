"""A release: protected images as a stranger can use them, verified as saved before they get their name."""

import glob
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from launch.data import Source
from launch.progress import Progress
from launch.protect_part import renumber
from launch.release_folder import FolderFiles, Saved, sha256_of
from launch.release_npz import NpzFiles
from launch.runs import Run, make_private, open_to_others, sync_folder
from launch.runtime import ProcessRuntime
from medveil import metrics
from medveil.dataset import Batch
from medveil.protector import Empty, Protector
from medveil.quantise import quantise, to_unit
from medveil.runtime import share
from medveil.version import versions

FORMAT = 1
MANIFEST = "manifest.json"

_BATCH_PIXELS = 1 << 19
_UNROUNDED = 1e-3
"""Noise in grey levels below which there was none to be rounded away."""

SSIM_SAMPLE = 1024
"""Changed images beyond which SSIM is the mean over so many of them, evenly spread: it takes longest of all checks."""

LEFT = "not among those to protect"
"""The reason of samples that were to stay as they are."""

Files = FolderFiles | NpzFiles
T = TypeVar("T")


class VerificationFailed(RuntimeError):
    """What was saved is not what was promised; there is no release."""


@dataclass(frozen=True)
class Plan:
    """What a release is made of: ``indices`` of ``source.data``; ``held_out`` ids are left out.

    ``chosen``: those of ``indices`` that get noise, the others are released as they are; None: all. ``numbers``: what
    the protector calls each class, where it was fitted on other numbers. ``part``: what the manifest says of both.
    """

    source: Source
    indices: Sequence[int]
    protector: Protector
    empty: Empty
    held_out: Sequence[str] = ()
    chosen: Set[int] | None = None
    numbers: tuple[int, ...] | None = None
    part: Mapping[str, Any] | None = None


@dataclass
class Summary:
    """What was released: counts, and means over the protected images."""

    samples: int = 0
    protected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    psnr: float | None = None
    ssim: float | None = None


def write_release(plan: Plan, out: Path, run: Run | None, runtime: ProcessRuntime) -> Summary | None:
    """Perturb on all ranks, then verify and rename to ``out`` on rank 0 (the others return None).

    ``run`` is rank 0's. Before the rename it notes the manifest's sha256 in ``release.json``, so that a restart knows
    its own release. Raises :class:`VerificationFailed`, and removes what was written, when the saved bytes break a
    promise.
    """
    partial, work = map(Path, runtime.processes.from_first(lambda: _begin(out, run)))
    files: Files = (
        NpzFiles(plan.source, partial, work) if plan.source.kind == "npz" else FolderFiles(plan.source, partial)
    )
    try:
        _perturb_share(plan, files, work, runtime)
        runtime.processes.barrier()
        if run is None:
            return None
        return _finish(plan, out, files, partial, work, run, runtime)
    finally:
        if runtime.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)


def _begin(out: Path, run: Run | None) -> list[str]:
    """Clear what dead copies left, and make this copy's folders: the release to be, and the ranks' notes and parts."""
    assert run is not None
    run.check_owner()
    for left in [*out.parent.glob(f"{glob.escape(out.name)}.partial-*"), *run.path.glob("release-*/")]:
        shutil.rmtree(left)
    folders = [out.with_name(f"{out.name}.partial-{run.token}"), run.path / f"release-{run.token}"]
    for folder in folders:
        make_private(folder)
    return [str(folder) for folder in folders]


def _perturb_share(plan: Plan, files: Files, work: Path, runtime: ProcessRuntime) -> None:
    mine = share(plan.indices, runtime)
    size = batch_size(plan.source.data.size)
    # Every rank makes the same number of rounds, so that all of them can ask together whether to stop.
    rounds = math.ceil(math.ceil(len(plan.indices) / runtime.world) / size)
    reasons: dict[str, str] = {}
    for number in _shown(range(rounds), len(mine), size, f"noise for {plan.source.name}", runtime):
        runtime.poll("while writing the release; the fit is saved")
        some = mine[number * size : (number + 1) * size]
        if not some:
            continue
        batch = plan.source.data.read(some)
        released, why = _release_part(plan, some, batch, runtime.device)
        reasons |= why
        keep = [i for i, sample in enumerate(batch.ids) if not _drops(plan, why.get(sample))]
        chosen = torch.tensor(keep, dtype=torch.int64)
        kept = Batch(batch.images[chosen], batch.targets[chosen], [batch.ids[i] for i in keep])
        files.write(runtime.rank, [some[i] for i in keep], kept, released[chosen])
    (work / f"reasons-{runtime.rank}.json").write_text(json.dumps(reasons))


def _shown(items: Iterable[T], total: int, size: int, label: str, runtime: ProcessRuntime) -> Iterator[T]:
    """``items`` of ``size`` images each, ``total`` together; says from time to time how far they are."""
    progress = Progress(label, runtime.progress.quiet, "image")
    progress.begin(0)
    try:
        for number, item in enumerate(items):
            yield item
            if progress.due(time.monotonic()):
                progress.show(min((number + 1) * size, total), total, {})
    finally:
        progress.close()


def batch_size(size: tuple[int, int]) -> int:
    """Images perturbed or verified together: about half a million pixels."""
    return max(1, min(64, _BATCH_PIXELS // (size[0] * size[1])))


def _release_part(
    plan: Plan, indices: Sequence[int], batch: Batch, device: torch.device
) -> tuple[Tensor, dict[str, str]]:
    """As :func:`_release`, of the samples that are to get noise; the others stay as they are."""
    wanted = [i for i, index in enumerate(indices) if plan.chosen is None or index in plan.chosen]
    reasons = dict.fromkeys(batch.ids, LEFT)
    released = batch.images.clone()
    if wanted:
        ids = [batch.ids[i] for i in wanted]
        part = Batch(batch.images[wanted], renumber(batch.targets[wanted], plan.numbers), ids)
        released[wanted], why = _release(plan.protector, part, device)
        reasons = {sample: reason for sample, reason in reasons.items() if sample not in set(ids)} | why
    return released, reasons


def _release(protector: Protector, batch: Batch, device: torch.device) -> tuple[Tensor, dict[str, str]]:
    """The released images, uint8, and for unchanged ones the reason by id where there is one."""
    images, targets = batch.images.to(device), batch.targets.to(device)
    protected = protector.perturb(images, targets, batch.ids)
    if not torch.isfinite(protected).all():
        raise VerificationFailed(f"{protector.name} made values that are no numbers for one of {', '.join(batch.ids)}")
    budget, support = protector.budget(), protector.support(targets)
    released = quantise(protected, images, budget.levels)
    unchanged = (released == images).flatten(1).all(1)
    noise = (protected - to_unit(images)).abs().flatten(1).amax(1) * 255
    reasons = {}
    for i in unchanged.nonzero().flatten().tolist():
        if budget.levels == 0:
            reasons[batch.ids[i]] = "the method changes nothing"
        elif support is not None and not support[i].any():
            reasons[batch.ids[i]] = "empty mask"
        elif noise[i] > _UNROUNDED:
            reasons[batch.ids[i]] = "the noise rounds to zero"
    return released.cpu(), reasons


def _drops(plan: Plan, reason: str | None) -> bool:
    return reason not in (None, LEFT) and plan.empty == "drop" and plan.protector.budget().levels != 0


def _finish(
    plan: Plan, out: Path, files: Files, partial: Path, work: Path, run: Run, runtime: ProcessRuntime
) -> Summary:
    reasons: dict[str, str] = {}
    for rank in range(runtime.world):
        reasons |= json.loads((work / f"reasons-{rank}.json").read_text())
    ids = plan.source.data.ids
    released = [i for i in plan.indices if not _drops(plan, reasons.get(ids[i]))]
    dropped = [{"id": ids[i], "reason": reasons[ids[i]]} for i in plan.indices if _drops(plan, reasons.get(ids[i]))]
    if not released:
        raise VerificationFailed("every image would be dropped: nothing is left to release")
    files.assemble(released, runtime.world)
    records, summary = verify(plan, files, released, reasons, runtime)
    _check_complete(partial, files.expected(released))
    summary.dropped = len(dropped)
    manifest = _manifest(plan, records, dropped, summary)
    if isinstance(files, NpzFiles):
        manifest["npz_sha256"] = sha256_of(files.path)
    with (partial / MANIFEST).open("w") as file:
        file.write(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    run.note("release.json", {"manifest": sha256_of(partial / MANIFEST)})
    open_to_others(partial)
    run.check_owner()
    # Fails on any folder that holds something: nothing is ever overwritten.
    partial.rename(out)
    sync_folder(out.parent)
    return summary


def verify(
    plan: Plan,
    files: Files,
    released: Sequence[int],
    reasons: Mapping[str, str],
    runtime: ProcessRuntime,
) -> tuple[list[dict[str, Any]], Summary]:
    """Read the saved bytes back and hold them against the budget, the originals and their targets.

    Returns a record per sample and the totals, both taken from the saved bytes. Raises :class:`VerificationFailed`.
    """
    records: list[dict[str, Any]] = []
    psnrs, ssims, summary = [], [], Summary(samples=len(released))
    measured = set(evenly([i for i in released if reasons.get(plan.source.data.ids[i]) is None], SSIM_SAMPLE))
    try:
        size = batch_size(plan.source.data.size)
        for saved in _shown(files.saved(released, size), len(released), size, f"verifying {plan.source.name}", runtime):
            runtime.check_stop("while verifying the release; the fit is saved")
            original = plan.source.data.read(saved.indices)
            change = _check(plan.protector, saved, original)
            for i, record in enumerate(saved.records):
                changed = int((change[i] > 0).sum())
                record = {
                    "id": original.ids[i],
                    **record,
                    **_target(original.targets[i], plan.source),
                    "protected": changed > 0,
                    "max_change": int(change[i].max()),
                    "changed": changed / change[i].numel(),
                    **_origin(plan.source, saved.indices[i]),
                }
                if (reason := reasons.get(original.ids[i])) is not None:
                    record["reason"] = reason
                if (reason is None) != (changed > 0):
                    what = "changed though it should not be" if changed else "unprotected, and nothing explains it"
                    raise VerificationFailed(f"{original.ids[i]} is {what}: take it out of the data, or report this")
                if changed:
                    psnrs.append(metrics.psnr(original.images[i], saved.images[i]))
                    if saved.indices[i] in measured:
                        ssims.append(metrics.ssim(original.images[i], saved.images[i]))
                records.append(record)
        if differing := files.differences():
            raise VerificationFailed(f"{', '.join(differing)} must stay as given and differs")
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise VerificationFailed(f"the saved files do not read back: {error}") from error
    if [record["id"] for record in records] != [plan.source.data.ids[i] for i in released]:
        raise VerificationFailed("the saved samples are not the given ones")
    summary.protected = sum(record["protected"] for record in records)
    summary.reasons = dict(Counter(reasons.values()))
    if psnrs:
        summary.psnr, summary.ssim = metrics.mean_psnr(psnrs), float(np.mean(ssims))
    return records, summary


def evenly(among: Sequence[int], count: int) -> list[int]:
    """``count`` of ``among`` from its beginning to its end, or all where there are no more."""
    count = min(count, len(among))
    return [among[i * len(among) // count] for i in range(count)]


def _check(protector: Protector, saved: Saved, original: Batch) -> Tensor:
    """|saved - original| in grey levels, int16 [B, C, H, W], after holding it against the budget."""
    if saved.images.shape != original.images.shape:
        raise VerificationFailed(f"{original.ids[0]} was saved with shape {tuple(saved.images.shape[1:])}")
    if saved.targets is not None and not torch.equal(saved.targets, original.targets):
        raise VerificationFailed(f"a mask of {', '.join(original.ids)} was saved with other values")
    change = (saved.images.to(torch.int16) - original.images.to(torch.int16)).abs()
    budget, support = protector.budget(), protector.support(original.targets)
    for i, sample in enumerate(original.ids):
        highest, count = int(change[i].max()), int((change[i] > 0).sum())
        if budget.levels is not None and highest > budget.levels:
            raise VerificationFailed(f"{sample} changes by {highest} grey levels; the budget is {budget.levels}")
        if budget.changed is not None and count > math.floor(budget.changed * change[i].numel() + 1e-9):
            raise VerificationFailed(
                f"{sample} has {count} changed values of {change[i].numel()}; the budget is {budget.changed:.0%}"
            )
        if support is not None and bool((change[i] > 0).logical_and(~support[i]).any()):
            raise VerificationFailed(f"{sample} is changed outside the region that the method may change")
    return change


def _check_complete(partial: Path, expected: set[str]) -> None:
    there = {path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()}
    if there != expected:
        odd = sorted(there ^ expected)
        raise VerificationFailed(
            f"the release would hold {len(there)} files instead of {len(expected)} (first: {odd[0]})"
        )


def _manifest(
    plan: Plan, records: list[dict[str, Any]], dropped: list[dict[str, str]], summary: Summary
) -> dict[str, Any]:
    """Nothing in it helps to recover an original: no seed, no option beyond mode and budget, no name of the run."""
    data, budget = plan.source.data, plan.protector.budget()
    return {
        "format": FORMAT,
        "method": plan.protector.name,
        "mode": getattr(plan.protector.config, "mode", None),
        "budget": {"levels": budget.levels, "changed": budget.changed},
        **({} if plan.part is None else {"part": dict(plan.part)}),
        "data": {
            "name": plan.source.name,
            "kind": plan.source.kind,
            "task": data.task,
            "channels": data.channels,
            "size": list(data.size),
            "classes": plan.source.class_names,
        },
        "totals": {
            "samples": summary.samples,
            "protected": summary.protected,
            "unprotected": summary.samples - summary.protected,
            "dropped": len(dropped),
            "held_out": len(plan.held_out),
            "psnr": summary.psnr,
            "ssim": summary.ssim,
        },
        "versions": versions(),
        "samples": records,
        "dropped": dropped,
        "held_out": list(plan.held_out),
    }


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


def _target(target: Tensor, source: Source) -> dict[str, Any]:
    """What the sample teaches: its class or labels, or whether its mask (a file of its own) is empty."""
    if source.data.task == "segmentation":
        return {"target": "mask" if target.any() else "empty mask"}
    return {"target": target.tolist()}


def _origin(source: Source, index: int) -> dict[str, Any]:
    origin = source.origin(index)
    return {"source_size": list(origin.size), "source_mode": origin.mode}
