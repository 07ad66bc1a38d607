"""One protect job: from a data set and a method to a verified release."""

import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from medveil.config import plain
from medveil.dataset import Subset
from medveil.errors import UserError
from medveil.launch.data import Opener, Source, split_holdout
from medveil.launch.errors import tell
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.methods import METHODS, protector_of, settings_of
from medveil.launch.protect.part import Chosen, choose
from medveil.launch.reading import STORED, read_own
from medveil.launch.release.manifest import MANIFEST, Manifest, check_outside_releases
from medveil.launch.release.private import PrivateManifest
from medveil.launch.release.verify import Plan, Summary
from medveil.launch.release.write import LEFT, NOTED, Noted, write_release
from medveil.launch.results import Number
from medveil.launch.running.files import drawn_once, make_private, sha256_of
from medveil.launch.running.machine import Precision
from medveil.launch.running.places import check_apart, check_place
from medveil.launch.running.processes import Processes, joined, run_local
from medveil.launch.running.runs import Run, owned
from medveil.launch.running.runtime import running, threads_by_default
from medveil.launch.running.spent import METRICS, begin_peak, spending, told
from medveil.protector import Empty, Protector


def run_protect(job: ProtectJob) -> Path:
    """Do the job, or go on with it where it was cut; returns the release folder.

    Raises UserError for what the user can mend, Interrupted when asked to stop (the state is saved), VerificationFailed
    when what was saved is not what was promised.
    """
    settings_of(job.method)
    check_place(job.out)
    check_apart(job.out, job.data, job.part.support)
    check_outside_releases(job.out)
    if os.path.lexists(job.out) and not job.run_root.is_dir():
        raise _other_origin(job.out)
    make_protector(job, "cpu" if job.preset == "auto" else job.preset, 0)
    if job.processes > 1:
        run_local(in_worker, job, job.processes)
    else:
        in_worker(job, None)
    return job.out


def in_worker(job: ProtectJob, meeting: tuple[str, int, int] | None) -> None:
    begin_peak()
    own_cache = job.run_root / "cache"
    with joined(job.device, meeting) as processes:
        _protect(job, processes, Opener(job.cache or own_cache))
        if processes.rank == 0 and job.cache is None:
            shutil.rmtree(own_cache, ignore_errors=True)


def _protect(job: ProtectJob, processes: Processes, opener: Opener) -> None:
    if job.shards > 1:
        _check_shards(job, processes)
    source = opener.open(job.data, size=job.size, splits=job.splits, alone=job.part.support is not None)
    empty = job.empty or ("drop" if source.data.task == "segmentation" else "release")
    indices, held_out = _indices(job, source, empty)
    # Told seeds and wrong options are known now, a drawn seed only below.
    part = choose(source, indices, job.part, job.seed or 0, opener) if job.part else None
    # Only now is anything written: whatever is wrong with the input has been said.
    chosen = processes.from_first(lambda: _chosen(job, processes))
    if part is not None and job.seed is None:
        part = choose(source, indices, job.part, chosen["seed"], opener)
    protector = make_protector(job, chosen["preset"], chosen["seed"])
    torch.set_num_threads(chosen["threads"])
    config = {
        "method": job.method,
        "options": plain(protector.config),
        "seed": chosen["seed"],
        "size": list(source.data.size),
        "holdout": [job.holdout, job.holdout_seed] if job.holdout else None,
        "splits": list(job.splits),
        "empty": empty,
        "threads": chosen["threads"],
        "precision": chosen["precision"],
    }
    if part is not None:
        config["part"] = part.identity
    if job.shards > 1:
        config["shards"] = job.shards
    with ExitStack() as stack:
        run, finished = stack.enter_context(
            owned(processes, job.run_root, config, source.fingerprint, lambda run: _finished(run, job.out))
        )
        if finished:
            if run is not None:
                _finish(run, job.out, None)
                _say(job, f"already done: {job.out} holds this release")
            return
        if run is not None:
            notes = [] if part is None else part.notes
            for line in [*source.notes, _headline(job, source, chosen, len(indices), len(held_out)), *notes]:
                run.log(line)
                _say(job, line)
        label = f"{job.method} on {source.name}"
        runtime = stack.enter_context(
            running(processes, run, chosen["precision"], label, job.checkpoint_seconds, job.quiet, job.shards)
        )
        spent = stack.enter_context(spending(run, runtime))
        if part is None:
            protector.fit(Subset(source.data, indices), runtime)
        elif part.indices:
            protector.fit(part.fit, runtime)
        else:
            protector = make_protector(replace(job, method="none", options={}), None, chosen["seed"])
        runtime.progress.close()
        plan = _plan(source, indices, protector, empty, held_out, part, job.licence)
        summary = write_release(plan, job.out, run, runtime)
        metrics = spent.metrics(len(indices))
        if run is not None and summary is not None:
            run.note(METRICS, metrics)
            _finish(run, job.out, metrics["seconds"])
            for line in [*_account(job, summary), told(metrics)]:
                run.log(line)
                _say(job, line)


def _plan(
    source: Source,
    indices: Sequence[int],
    protector: Protector,
    empty: Empty,
    held_out: Sequence[str],
    part: Chosen | None,
    licence: str | None,
) -> Plan:
    plan = Plan(source, indices, protector, empty, held_out, licence=licence)
    if part is None:
        return plan
    return replace(plan, chosen=frozenset(part.indices), numbers=part.numbers, part=part.scope)


def metrics_of(job: ProtectJob) -> dict[str, Number | str | None] | None:
    """What the release at ``job.out`` took, in the words of ``Spent.metrics``; None where its run is gone."""
    digest = sha256_of(job.out / MANIFEST)
    for note in sorted(job.run_root.glob(f"*/{NOTED}")):
        metrics = note.with_name(METRICS)
        noted = read_own(Noted, note)
        if noted is not None and noted.manifest == digest:
            return read_own(dict[str, Number | str | None], metrics)
    return None


def make_protector(job: ProtectJob, preset: str | None, seed: int) -> Protector:
    """The job's method with its options over the preset's. Raises UserError for options that it refuses."""
    options = {**(settings_of(job.method).presets[preset] if preset else {}), **job.options}
    return protector_of(job.method)(**{"seed": seed, **options})


def _check_shards(job: ProtectJob, processes: Processes) -> None:
    shards = job.shards
    protector = make_protector(job, "cpu" if job.preset == "auto" else job.preset, 0)
    # Kept noise has owners: processes work on the samples that are theirs, wherever these come in a batch.
    if protector.config.keeps_noise:
        raise UserError("--shards: noise that is kept between visits is shared out in another way: leave --shards away")
    if processes.device.type == "cuda":
        raise UserError("--shards is for --device cpu: a GPU's convolutions do not promise their last digits")
    if shards & (shards - 1) or shards % processes.world:
        raise UserError(f"--shards {shards}: a power of two, and a multiple of the number of processes")


@dataclass(frozen=True)
class _Drawn:
    """What is chosen at the first start of a run folder where nothing is told."""

    __pydantic_config__ = STORED

    seed: Annotated[int, Field(ge=0, lt=1 << 62)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    precision: Precision
    preset: Literal["cpu", "gpu"]


def _chosen(job: ProtectJob, processes: Processes) -> dict[str, Any]:
    """Seed, threads, precision and preset: as told, else as chosen at the first start of this run folder."""
    root = job.run_root
    cuda = processes.device.type == "cuda"
    make_private(root)
    kept = drawn_once(
        root / "chosen.json",
        _Drawn,
        lambda: _Drawn(
            seed=secrets.randbits(62),
            threads=max(1, threads_by_default() // processes.world),
            precision="bf16" if cuda else "fp32",
            preset="gpu" if cuda else "cpu",
        ),
    )
    told = {"seed": job.seed, "threads": job.threads, "precision": job.precision, "preset": job.preset}
    chosen = {key: getattr(kept, key) if value is None else value for key, value in told.items()}
    chosen["preset"] = kept.preset if job.preset == "auto" else job.preset
    return chosen


def _indices(job: ProtectJob, source: Source, empty: Empty) -> tuple[list[int], list[str]]:
    """The samples to fit and release, and the ids that are held out."""
    task = source.data.task
    if task not in METHODS[job.method].tasks:
        others = ", ".join(name for name, settings in METHODS.items() if task in settings.tasks)
        raise UserError(f"{job.data} is a {task} set, which {job.method} cannot protect; these can: {others}")
    if source.kind == "npz":
        if job.holdout:
            raise UserError(f"--holdout is for folders: {job.data} keeps its own test split")
        if empty == "drop":
            raise UserError(f"--empty drop is for folders: {job.data} keeps its shapes")
    if not job.holdout:
        return list(range(len(source.data))), []
    train, test = split_holdout(source.data, job.holdout, job.holdout_seed)
    return train, [source.data.ids[i] for i in test]


def _finished(run: Run, out: Path) -> bool:
    """Whether ``out`` is this run's release and intact. Raises UserError where it is another's, or being written."""
    for path, held in run.siblings():
        if held:
            raise UserError(f"{out} is being written by another run, of other settings ({path}): wait or stop it")
    if not os.path.lexists(out):
        return False
    noted = run.read_note(NOTED, Noted)
    manifest = out / MANIFEST
    if noted is None or not manifest.is_file() or sha256_of(manifest) != noted.manifest:
        raise _other_origin(out)
    if (damaged := Manifest.read(out).first_damage(out)) is not None:
        raise UserError(f"{out / damaged} was changed after the release was written: remove {out} to write it again")
    return True


def _other_origin(out: Path) -> UserError:
    return UserError(
        f"{out} exists and does not come from this data and these settings: choose another --out or remove it"
    )


def _finish(run: Run, out: Path, seconds: float | None) -> None:
    if run.read_note("done.json", dict[str, Any]) is None:
        made = PrivateManifest.needed(out, run.path, "what was done to its images")
        totals = asdict(made.totals)
        run.finish({"totals": totals, "seconds": seconds, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _headline(job: ProtectJob, source: Source, chosen: Mapping[str, Any], count: int, held_out: int) -> str:
    height, width = source.data.size
    preset = f", preset {chosen['preset']}" if chosen["preset"] else ""
    seed = "a secret seed" if job.seed is None else f"seed {job.seed}"
    held = f", {held_out} held out" if held_out else ""
    return (
        f"protecting {count} images of {width}x{height} from {source.name} with {job.method}{preset}{held}; "
        f"{seed}, {chosen['threads']} threads, {chosen['precision']}"
    )


def _account(job: ProtectJob, summary: Summary) -> list[str]:
    lines = [f"{summary.protected} of {summary.samples} released images are protected"]
    for reason, count in summary.reasons.items():
        what = "dropped" if summary.dropped and reason != LEFT else "released unchanged"
        lines.append(
            f"{count} {reason}: {what}" if reason == LEFT else f"{count} with nothing to protect ({reason}): {what}"
        )
    if summary.psnr is not None and summary.ssim is not None:
        lines.append(f"PSNR {summary.psnr:.2f} dB, SSIM {summary.ssim:.4f} (means over the protected images)")
    lines.append(f"release: {job.out}")
    lines.append(f"private run, not to be published: {job.run_root}")
    return lines


def _say(job: ProtectJob, line: str) -> None:
    if not job.quiet:
        tell(line)
