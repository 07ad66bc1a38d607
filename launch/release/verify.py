"""The saved bytes of a release against what was promised of them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medveil import metrics
from medveil.dataset import Batch
from medveil.launch.data import Source
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.folder import FolderFiles, Saved
from medveil.launch.release.manifest import Sample
from medveil.launch.release.npz import NpzFiles
from medveil.launch.release.private import Original, Scope, Treated
from medveil.launch.running.progress import shown
from medveil.launch.running.runtime import ProcessRuntime
from medveil.protector import Empty, Protector

SSIM_SAMPLE = 1024
"""Changed images beyond which SSIM is the mean over so many of them, evenly spread: it takes longest of all checks."""

_BATCH_PIXELS = 1 << 19

Files = FolderFiles | NpzFiles


@dataclass(frozen=True)
class Plan:
    """What a release is made of: ``indices`` of ``source.data``; ``held_out`` ids are left out.

    ``chosen``: those of ``indices`` that get noise, the others are released as they are; None: all. ``numbers``: what
    the protector calls each class, where it was fitted on other numbers. ``part``: what the private manifest says of
    both. ``licence``: for the public one.
    """

    source: Source
    indices: Sequence[int]
    protector: Protector
    empty: Empty
    held_out: Sequence[str] = ()
    chosen: Set[int] | None = None
    numbers: tuple[int, ...] | None = None
    part: Scope | None = None
    licence: str | None = None


@dataclass
class Summary:
    """What was released: counts, and means over the protected images."""

    samples: int = 0
    protected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    psnr: float | None = None
    ssim: float | None = None


def verify(
    plan: Plan,
    files: Files,
    released: Sequence[int],
    reasons: Mapping[str, str],
    runtime: ProcessRuntime,
) -> tuple[list[Sample], list[Treated], Summary]:
    """Read the saved bytes back and hold them against the budget, the originals and their targets.

    Returns the samples, what was done to each, and the totals, all taken from the saved bytes. Raises
    :class:`VerificationFailed`.
    """
    samples: list[Sample] = []
    treated: list[Treated] = []
    psnrs, ssims, summary = [], [], Summary(samples=len(released))
    measured = set(evenly([i for i in released if reasons.get(plan.source.data.ids[i]) is None], SSIM_SAMPLE))
    try:
        size = batch_size(plan.source.data.size)
        for saved in shown(
            files.saved(released, size), len(released), size, f"verifying {plan.source.name}", runtime.progress.quiet
        ):
            runtime.check_stop("while verifying the release; the fit is saved")
            original = plan.source.data.read(saved.indices)
            change = _check(plan.protector, saved, original)
            for i, index in enumerate(saved.indices):
                changed = int((change[i] > 0).sum())
                origin = plan.source.origin(index)
                reason = reasons.get(original.ids[i])
                if (reason is None) != (changed > 0):
                    what = "changed though it should not be" if changed else "unprotected, and nothing explains it"
                    raise VerificationFailed(f"{original.ids[i]} is {what}: take it out of the data, or report this")
                if changed:
                    psnrs.append(metrics.psnr(original.images[i], saved.images[i]))
                    if index in measured:
                        ssims.append(metrics.ssim(original.images[i], saved.images[i]))
                target = _target(original.targets[i], plan.source)
                samples.append(Sample(**saved.files[i]._asdict(), id=original.ids[i], target=target))
                done = Treated(
                    id=original.ids[i],
                    protected=changed > 0,
                    max_change=int(change[i].max()),
                    changed=changed / change[i].numel(),
                    source_size=origin.size,
                    source_mode=origin.mode,
                    original=None if origin.file is None else Original(*origin.file),
                    masks=tuple(Original(*mask) for mask in origin.masks),
                    reason=reason,
                )
                treated.append(done)
        if differing := files.differences():
            raise VerificationFailed(f"{', '.join(differing)} must stay as given and differs")
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise VerificationFailed(f"the saved files do not read back: {error}") from error
    if [sample.id for sample in samples] != [plan.source.data.ids[i] for i in released]:
        raise VerificationFailed("the saved samples are not the given ones")
    summary.protected = sum(one.protected for one in treated)
    summary.reasons = dict(Counter(reasons.values()))
    if psnrs:
        summary.psnr, summary.ssim = metrics.mean_psnr(psnrs), float(np.mean(ssims))
    return samples, treated, summary


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


def check_complete(partial: Path, expected: set[str]) -> None:
    """Raise :class:`VerificationFailed` unless the files under ``partial`` are those named in ``expected``."""
    there = {path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()}
    if there != expected:
        odd = sorted(there ^ expected)
        raise VerificationFailed(
            f"the release would hold {len(there)} files instead of {len(expected)} (first: {odd[0]})"
        )


def batch_size(size: tuple[int, int]) -> int:
    """Images perturbed or verified together: about half a million pixels."""
    return max(1, min(64, _BATCH_PIXELS // (size[0] * size[1])))


def _target(target: Tensor, source: Source) -> Any:
    """What the sample teaches: its class or labels, or whether its mask (a file of its own) is empty."""
    if source.data.task == "segmentation":
        return "mask" if target.any() else "empty mask"
    return int(target) if source.data.task == "classification" else tuple(target.tolist())
