"""A release: protected images as a stranger can use them, verified as saved before they get their name."""

import errno
import json
import math
import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from medveil.dataset import Batch
from medveil.errors import UserError
from medveil.launch.data.formats.dicom_release import Identity
from medveil.launch.data.formats.windows import check_room
from medveil.launch.errors import VerificationFailed, printable
from medveil.launch.reading import STORED
from medveil.launch.release.compare import batch_size
from medveil.launch.release.folder import FolderFiles
from medveil.launch.release.manifest import FORMAT, MANIFEST, Described, Digest, Manifest, Sample
from medveil.launch.release.native import NativeFiles
from medveil.launch.release.npz import NpzFiles
from medveil.launch.release.private import Bound, Dropped, Named, PrivateManifest, Totals, Treated
from medveil.launch.release.verify import Files, ReleasePlan, Summary, check_complete, verify
from medveil.launch.running.files import drawn_once, make_private, open_to_others, sha256_of, sync_folder, sync_tree
from medveil.launch.running.places import abandoned, partial_of, work_of
from medveil.launch.running.progress import shown
from medveil.launch.running.runs import Run
from medveil.launch.running.runtime import ProcessRuntime
from medveil.protector import Protector
from medveil.quantise import to_unit
from medveil.runtime import batches, local_slice
from medveil.version import versions

_UNROUNDED = 1e-3
"""Noise in grey levels below which there was none to be rounded away."""

LEFT = "not among those to protect"
"""The reason of samples that were to stay as they are."""

ROUNDED = "the noise rounds to zero"
"""The reason of samples whose noise is less than half a grey level."""

EVEN = "an even image, which the method leaves as it is"
"""The reason of black, white or otherwise constant images, in which some methods find nothing to work on."""


NOTED = "release.json"
"""The note in a run directory that holds :class:`Noted`."""


@dataclass(frozen=True)
class Noted:
    """By what a run knows its own release: the sha256 of the manifest."""

    __pydantic_config__ = STORED

    manifest: Digest


def write_release(plan: ReleasePlan, out: Path, run: Run | None, runtime: ProcessRuntime) -> Summary | None:
    """Perturb on all ranks, then verify and rename to ``out`` on rank 0 (the others return None).

    ``run`` is rank 0's. Before the rename it gets the private manifest and the note :data:`NOTED`, so that a restart
    knows its own release. Raises :class:`VerificationFailed`, and removes what was written, when the saved bytes break
    a promise.
    """
    for file in plan.source.files if plan.native else ():
        check_room(file.step, file.windows, plan.protector.budget().levels, str(file.image))
    partial, work = map(Path, runtime.processes.from_first(lambda: _begin(out, run)))
    secret = runtime.processes.from_first(lambda: _secret(run)) if plan.native else ""
    files = _files(plan, partial, work, Identity(bytes.fromhex(secret)))
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


def _files(plan: ReleasePlan, partial: Path, work: Path, identity: Identity) -> Files:
    if plan.source.kind == "npz":
        return NpzFiles(plan.source, partial, work)
    return NativeFiles(plan.source, partial, identity) if plan.native else FolderFiles(plan.source, partial)


@dataclass(frozen=True)
class _Secret:
    """What new identifiers are made with, in hex: the same ones when the release is written again."""

    __pydantic_config__ = STORED

    secret: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _secret(run: Run | None) -> str:
    assert run is not None
    return drawn_once(run.path / "identity.json", _Secret, lambda: _Secret(secrets.token_hex(32))).secret


def _begin(out: Path, run: Run | None) -> list[str]:
    """Clear what dead copies left, and make this copy's folders: the release to be, and the ranks' notes and parts."""
    assert run is not None
    run.check_owner()
    for dead in [run.path, *(path for path, held in run.siblings() if not held)]:
        for token in abandoned(dead):
            # The folder in the run goes last: it is what tells that the other is ours.
            shutil.rmtree(partial_of(out, token), ignore_errors=True)
            shutil.rmtree(work_of(dead, token))
    partial, work = partial_of(out, run.token), work_of(run.path, run.token)
    for folder in (work, partial):
        make_private(folder)
    return [str(partial), str(work)]


def _perturb_share(plan: ReleasePlan, files: Files, work: Path, runtime: ProcessRuntime) -> None:
    # Whole parts are shared out: the last digits of a network's output depend on the batch it is in.
    size = batch_size(plan.source.data.size)
    whole = files.portions(plan.indices, size)
    mine = local_slice(whole, runtime)
    # Every rank makes the same number of rounds, so that all of them can ask together whether to stop.
    rounds = math.ceil(len(whole) / runtime.world)
    reasons: dict[str, str] = {}
    label, quiet = f"noise for {plan.source.name}", runtime.progress.quiet
    for some in shown([*mine, *[[]] * (rounds - len(mine))], sum(map(len, mine)), label, quiet, len):
        runtime.poll("while writing the release; the fit is saved")
        if not some:
            continue
        batch = plan.source.data.read(some)
        protected, why = _perturbed(plan, some, batch, size, runtime.device)
        images = files.render(some, batch, protected, plan.protector)
        reasons |= {batch.ids[i]: why[i] for i, image in enumerate(images) if image.unchanged and why[i]}
        keep = [i for i, sample in enumerate(batch.ids) if not _drops(plan, reasons.get(sample))]
        chosen = torch.tensor(keep, dtype=torch.int64)
        released = Batch(batch.images[chosen], batch.targets[chosen], [batch.ids[i] for i in keep])
        files.write(runtime.rank, [some[i] for i in keep], [images[i] for i in keep], released)
    (work / f"reasons-{runtime.rank}.json").write_text(json.dumps(reasons))


def _perturbed(
    plan: ReleasePlan, indices: Sequence[int], batch: Batch, size: int, device: torch.device
) -> tuple[Tensor, list[str]]:
    """The protected images, float32 [B, C, H, W] in [0, 1], and why each of them may look as it did ("": no reason).

    Those that are to get no noise are as they were. ``size``: how many are perturbed together.
    """
    wanted = [i for i, index in enumerate(indices) if plan.chosen is None or index in plan.chosen]
    protected, reasons = to_unit(batch.images), [LEFT] * len(batch.ids)
    for some in batches(wanted, size):
        ids = [batch.ids[i] for i in some]
        targets = renumber(batch.targets[some], plan.numbers)
        part = Batch(batch.images[some].to(device), targets.to(device), ids)
        changed = plan.protector.perturb(*part)
        if not torch.isfinite(changed).all():
            name = plan.protector.name
            raise VerificationFailed(f"{name} made values that are no numbers for one of {', '.join(ids)}")
        for i, reason in zip(some, _reasons(plan.protector, part, changed), strict=True):
            reasons[i] = reason
        protected[some] = changed.to(torch.float32).cpu()
    return protected, reasons


def _reasons(protector: Protector, batch: Batch, protected: Tensor) -> list[str]:
    """Why each of the images would stay as it is once it is saved; "" where nothing explains it."""
    support = protector.support(batch.targets)
    noise = (protected - to_unit(batch.images)).abs().flatten(1).amax(1) * 255
    even = (batch.images == batch.images[:, :, :1, :1]).flatten(1).all(1)
    reasons = [""] * len(batch.ids)
    for i in range(len(batch.ids)):
        if protector.budget().levels == 0:
            reasons[i] = "the method changes nothing"
        elif support is not None and not support[i].any():
            reasons[i] = "empty mask"
        elif noise[i] > _UNROUNDED:
            reasons[i] = ROUNDED
        elif even[i]:
            reasons[i] = EVEN
    return reasons


def _drops(plan: ReleasePlan, reason: str | None) -> bool:
    return reason not in (None, LEFT, EVEN) and plan.empty == "drop" and plan.protector.budget().levels != 0


def _finish(
    plan: ReleasePlan, out: Path, files: Files, partial: Path, work: Path, run: Run, runtime: ProcessRuntime
) -> Summary:
    reasons: dict[str, str] = {}
    for rank in range(runtime.world):
        reasons |= json.loads((work / f"reasons-{rank}.json").read_text())
    ids = plan.source.data.ids
    released = [i for i in plan.indices if not _drops(plan, reasons.get(ids[i]))]
    dropped = [Dropped(ids[i], reasons[ids[i]]) for i in plan.indices if _drops(plan, reasons.get(ids[i]))]
    if not released:
        counts = Counter(sample.reason for sample in dropped)
        why = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
        more = "; fit longer, or give a wider bound" if ROUNDED in counts else ""
        raise UserError(f"nothing is left to release ({why}){more}")
    files.assemble(released, runtime.world)
    samples, treated, summary = verify(plan, files, released, reasons, runtime)
    check_complete(partial, files.expected(released))
    summary.dropped = len(dropped)
    npz_sha256 = sha256_of(files.path) if isinstance(files, NpzFiles) else None
    _public(plan, samples, npz_sha256, files.others()).write(partial)
    sync_tree(partial)
    digest = sha256_of(partial / MANIFEST)
    run.check_owner()
    left_out = [Dropped(sample, printable(reason)[:1000]) for sample, reason in plan.source.left_out]
    _private(plan, treated, [*dropped, *left_out], summary, digest).write(run.path)
    run.note(NOTED, asdict(Noted(digest)))
    open_to_others(partial)
    run.check_owner()
    try:
        # Fails on any folder that holds something: nothing is ever overwritten.
        partial.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{out} was made by somebody else meanwhile: choose another --out") from None
        raise
    sync_folder(out.parent)
    return summary


def _public(plan: ReleasePlan, samples: Sequence[Sample], npz_sha256: str | None, others: dict[str, str]) -> Manifest:
    data, classes = plan.source.data, plan.source.class_names
    return Manifest(
        format=FORMAT,
        data=Described(
            kind=plan.source.kind,
            task=data.task,
            channels=data.channels,
            size=data.size,
            classes=None if classes is None else tuple(classes),
        ),
        samples=tuple(samples),
        npz_sha256=npz_sha256,
        others=others,
        licence=plan.licence,
    )


def _private(
    plan: ReleasePlan, treated: Sequence[Treated], dropped: Sequence[Dropped], summary: Summary, public: str
) -> PrivateManifest:
    budget, place = plan.protector.budget(), plan.source.place
    return PrivateManifest(
        format=FORMAT,
        public=public,
        data=Named(plan.source.name, None if place is None else str(place.absolute())),
        method=plan.protector.name,
        mode=getattr(plan.protector.config, "mode", None),
        budget=Bound(budget.levels, budget.changed),
        settings=dict(plan.settings),
        part=plan.part,
        totals=Totals(
            samples=summary.samples,
            protected=summary.protected,
            unprotected=summary.samples - summary.protected,
            dropped=len(dropped),
            held_out=len(plan.held_out),
            psnr=summary.psnr,
            ssim=summary.ssim,
        ),
        versions=versions(),
        survives=summary.survives,
        visible=summary.visible,
        samples=tuple(treated),
        dropped=tuple(dropped),
        held_out=tuple(plan.held_out),
    )


def renumber(targets: Tensor, numbers: tuple[int, ...] | None) -> Tensor:
    """``targets`` as the fit calls them."""
    return targets if numbers is None else torch.tensor(numbers, device=targets.device)[targets]
