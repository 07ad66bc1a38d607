"""The saved bytes of a release against what was promised of them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medveil import metrics
from medveil.launch.data import Source
from medveil.launch.data.formats.windows import TOLERANCE
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.compare import Compared
from medveil.launch.release.folder import FolderFiles
from medveil.launch.release.manifest import Sample
from medveil.launch.release.native import NativeFiles
from medveil.launch.release.npz import NpzFiles
from medveil.launch.release.private import Original, Scope, Treated
from medveil.launch.release.survival import SAMPLE, Survival
from medveil.launch.running.progress import shown
from medveil.launch.running.runtime import ProcessRuntime
from medveil.protector import Budget, Empty, Protector

SSIM_SAMPLE = 1024
"""Changed images beyond which SSIM is the mean over so many of them, evenly spread: it takes longest of all checks."""

Files = FolderFiles | NpzFiles | NativeFiles


@dataclass(frozen=True)
class ReleasePlan:
    """What a release is made of: ``indices`` of ``source.data``; ``held_out`` ids are left out.

    ``chosen``: those of ``indices`` that get noise, the others are released as they are; None: all. ``numbers``: what
    the protector calls each class, where it was fitted on other numbers. For the private manifest: the ``settings`` of
    the protector that were given, and ``part``, what is said of classes and shares. ``licence``: for the public one.
    ``native``: whether images are released at the size and depth of their files.
    """

    source: Source
    indices: Sequence[int]
    protector: Protector
    empty: Empty
    held_out: Sequence[str] = ()
    chosen: Set[int] | None = None
    numbers: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: Scope | None = None
    licence: str | None = None
    native: bool = False


@dataclass
class Summary:
    """What was released: counts, means over the protected images, :meth:`Survival.shares`, :meth:`Visibility.shown`."""

    samples: int = 0
    protected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    psnr: float | None = None
    ssim: float | None = None
    survives: dict[str, dict[str, float]] = field(default_factory=dict)
    visible: dict[str, dict[str, float]] = field(default_factory=dict)


def verify(
    plan: ReleasePlan,
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
    protected = [i for i in released if reasons.get(plan.source.data.ids[i]) is None]
    measured, resized = set(evenly(protected, SSIM_SAMPLE)), set(evenly(protected, SAMPLE))
    survival = Survival()
    name, quiet = plan.source.name, runtime.progress.quiet
    try:
        compared = files.compared(released, plan.protector)
        for part in shown(compared, len(released), f"verifying {name}", quiet, lambda part: len(part.indices)):
            runtime.check_stop("while verifying the release; the fit is saved")
            for i, index in enumerate(part.indices):
                sample = plan.source.data.ids[index]
                changed = int(part.changed[i].sum())
                _check(plan.protector.budget(), part, i, sample)
                origin = plan.source.origin(index)
                reason = reasons.get(sample)
                if (reason is None) != (changed > 0):
                    what = "changed though it should not be" if changed else "unprotected, and nothing explains it"
                    raise VerificationFailed(f"{sample} is {what}: take it out of the data, or report this")
                if changed:
                    psnrs.append(metrics.psnr(part.original[i], part.saved[i]))
                    if index in measured:
                        ssims.append(metrics.ssim(part.original[i], part.saved[i]))
                    if index in resized:
                        survival.add(part.saved[i : i + 1].float() - part.original[i : i + 1].float())
                target = _target(part.targets[i], plan.source)
                samples.append(Sample(**part.files[i]._asdict(), id=sample, target=target))
                done = Treated(
                    id=sample,
                    protected=changed > 0,
                    max_change=_level(part.change[i]),
                    changed=changed / part.changed[i].numel(),
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
    summary.survives, summary.visible = survival.shares(), files.visible()
    if psnrs:
        # Under the windows that the fit saw, some noise shows nowhere: on voxels that are black or white in them.
        psnr = metrics.mean_psnr(psnrs)
        summary.psnr, summary.ssim = psnr if math.isfinite(psnr) else None, float(np.mean(ssims))
    return samples, treated, summary


def evenly(among: Sequence[int], count: int) -> list[int]:
    """``count`` of ``among`` from its beginning to its end, or all where there are no more."""
    count = min(count, len(among))
    return [among[i * len(among) // count] for i in range(count)]


def _check(budget: Budget, part: Compared, i: int, sample: str) -> None:
    """Hold the ``i``-th image of ``part`` against the budget and the support."""
    highest, changed = float(part.change[i].max()), part.changed[i]
    if budget.levels is not None and highest > budget.levels + (TOLERANCE if part.change.is_floating_point() else 0):
        raise VerificationFailed(f"{sample} changes by {highest:g} grey levels; the budget is {budget.levels}")
    count = int(changed.sum())
    if budget.changed is not None and count > math.floor(budget.changed * changed.numel() + 1e-9):
        raise VerificationFailed(
            f"{sample} has {count} changed values of {changed.numel()}; the budget is {budget.changed:.0%}"
        )
    if part.support is not None and bool(changed.logical_and(~part.support[i]).any()):
        raise VerificationFailed(f"{sample} is changed outside the region that the method may change")


def _level(change: Tensor) -> int | float:
    """The largest change: whole grey levels of 8-bit images, rounded to four digits of others."""
    highest = float(change.max())
    return round(highest, 4) if change.is_floating_point() and highest != int(highest) else int(highest)


def check_complete(partial: Path, expected: set[str]) -> None:
    """Raise :class:`VerificationFailed` unless the files under ``partial`` are those named in ``expected``."""
    there = {path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()}
    if there != expected:
        odd = sorted(there ^ expected)
        raise VerificationFailed(
            f"the release would hold {len(there)} files instead of {len(expected)} (first: {odd[0]})"
        )


def _target(target: Tensor, source: Source) -> Any:
    """What the sample teaches: its class or labels, or whether its mask (a file of its own) is empty."""
    if source.data.task == "segmentation":
        return "mask" if target.any() else "empty mask"
    return int(target) if source.data.task == "classification" else tuple(target.tolist())
