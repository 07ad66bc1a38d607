"""One protect job: from a data set and a method to a verified release."""

import hashlib
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from medveil.config import plain
from medveil.errors import UserError
from medveil.kernels import NanGradient
from medveil.launch.data import Opener
from medveil.launch.errors import tell
from medveil.launch.protect.chosen import choose_once
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.input import Input, check_job, headlines, make_protector, open_input, other_origin
from medveil.launch.protect.own import digest_of, is_file
from medveil.launch.protect.part import choose
from medveil.launch.reading import read_own
from medveil.launch.release import visibility
from medveil.launch.release.manifest import MANIFEST, Manifest
from medveil.launch.release.private import PrivateManifest
from medveil.launch.release.survival import warning
from medveil.launch.release.verify import ReleasePlan, Summary
from medveil.launch.release.write import LEFT, NOTED, Noted, write_release
from medveil.launch.results import Number
from medveil.launch.running.files import sha256_of
from medveil.launch.running.processes import Processes, joined, run_local
from medveil.launch.running.runs import DONE, Run, owned
from medveil.launch.running.runtime import DIVERGED, running
from medveil.launch.running.spent import METRICS, begin_peak, spending, spent_line
from medveil.protector import Protector


def run_protect(job: ProtectJob) -> Path:
    """Do the job, or go on with it where it was cut; returns the release folder.

    Raises UserError for what the user can mend, Interrupted when asked to stop (the state is saved), VerificationFailed
    when what was saved is not what was promised.
    """
    check_job(job)
    if job.processes > 1:
        run_local(in_worker, job, job.processes)
    else:
        in_worker(job, None)
    return job.out


def in_worker(job: ProtectJob, meeting: tuple[str, int, int] | None) -> None:
    begin_peak()
    own_cache = job.run_root / "cache"
    with joined(job.device, meeting) as processes:
        _protect(job, processes, Opener(job.cache or own_cache, job.skip_bad, job.reading, job.fit_windows))
        if processes.rank == 0 and job.cache is None:
            shutil.rmtree(own_cache, ignore_errors=True)


def _protect(job: ProtectJob, processes: Processes, opener: Opener) -> None:
    if job.shards > 1:
        _check_shards(job, processes)
    given = open_input(job, opener)
    source, part = given.source, given.part
    # Only now is anything written: whatever is wrong with the input has been said.
    chosen = processes.from_first(lambda: choose_once(job, processes))
    if part is not None and job.seed is None:
        part = choose(source, given.indices, job.part, chosen["seed"], opener)
        given = replace(given, part=part)
    protector = make_protector(job, chosen["preset"], chosen["seed"])
    torch.set_num_threads(chosen["threads"])
    config = {
        "method": job.method,
        "options": plain(protector.config),
        "seed": chosen["seed"],
        "size": list(source.data.size),
        "holdout": [job.holdout, job.holdout_seed] if job.holdout else None,
        "splits": list(job.splits),
        "empty": given.empty,
        "threads": chosen["threads"],
        "precision": chosen["precision"],
    }
    if is_file(job.method):
        config["file"] = digest_of(job.method)
    if job.groups is not None:
        # A changed table may hold out others under the same name.
        config["held_out"] = hashlib.sha256("\x1f".join(sorted(given.held_out)).encode()).hexdigest()
    if part is not None:
        config["part"] = part.identity
    if job.shards > 1:
        config["shards"] = job.shards
    if given.native:
        config["native"] = True
    with ExitStack() as stack:
        run, finished = stack.enter_context(
            owned(processes, job.run_root, config, source.fingerprint, lambda run: _finished(run, job))
        )
        if finished:
            if run is not None:
                _finish(run, job.out, None)
                _say(job, f"already done: {job.out} holds this release")
            return
        if run is not None:
            for line in headlines(job, given, chosen):
                run.log(line)
                _say(job, line)
        label = f"{job.method} on {source.name}"
        runtime = stack.enter_context(
            running(processes, run, chosen["precision"], label, job.checkpoint_seconds, job.quiet, job.shards)
        )
        spent = stack.enter_context(spending(run, runtime))
        if part is None or part.indices:
            try:
                protector.fit(given.fit, runtime)
            except NanGradient:
                raise UserError(DIVERGED) from None
        else:
            protector = make_protector(replace(job, method="none", options={}), None, chosen["seed"])
        runtime.progress.close()
        plan = _plan(job, given, protector)
        summary = write_release(plan, job.out, run, runtime)
        metrics = spent.metrics(len(given.indices))
        if run is not None and summary is not None:
            run.note(METRICS, metrics)
            _finish(run, job.out, metrics["seconds"])
            for line in [*_account(job, summary), spent_line(metrics)]:
                run.log(line)
                _say(job, line)


def _plan(job: ProtectJob, given: Input, protector: Protector) -> ReleasePlan:
    source, indices, empty, held_out = given.source, given.indices, given.empty, given.held_out
    plan = ReleasePlan(
        source,
        indices,
        protector,
        empty,
        held_out,
        settings=job.options,
        licence=job.licence,
        native=given.native,
    )
    if (part := given.part) is None:
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


def _finished(run: Run, job: ProtectJob) -> bool:
    """Whether ``job.out`` is this run's release and intact. Raises UserError for another's, or one being written."""
    out = job.out
    for path, held in run.siblings():
        if held:
            raise UserError(f"{out} is being written by another run, of other settings ({path}): wait or stop it")
    if not os.path.lexists(out):
        return False
    noted = run.read_note(NOTED, Noted)
    manifest = out / MANIFEST
    if noted is None or not manifest.is_file() or sha256_of(manifest) != noted.manifest:
        raise other_origin(job)
    # The terms are no part of what the run computes, but of what the release says.
    if (released := Manifest.read(out)).licence != job.licence:
        raise other_origin(job)
    if (damaged := released.first_damage(out)) is not None:
        raise UserError(f"{out / damaged} was changed after the release was written: remove {out} to write it again")
    return True


def _finish(run: Run, out: Path, seconds: float | None) -> None:
    if run.read_note(DONE, dict[str, Any]) is None:
        made = PrivateManifest.needed(out, run.path, "what was done to its images")
        totals = asdict(made.totals)
        run.finish({"totals": totals, "seconds": seconds, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _account(job: ProtectJob, summary: Summary) -> list[str]:
    lines = [f"{summary.protected} of {summary.samples} released images are protected"]
    for reason, count in summary.reasons.items():
        what = "dropped" if summary.dropped and reason != LEFT else "released unchanged"
        lines.append(
            f"{count} {reason}: {what}" if reason == LEFT else f"{count} with nothing to protect ({reason}): {what}"
        )
    if summary.psnr is not None and summary.ssim is not None:
        lines.append(f"PSNR {summary.psnr:.2f} dB, SSIM {summary.ssim:.4f} (means over the protected images)")
    if job.size is None and (line := warning(summary.survives)) is not None:
        lines.append(line)
    if (line := visibility.line(summary.visible)) is not None:
        lines.append(line)
    lines.append(f"release: {job.out}")
    lines.append(f"private run, not to be published: {job.run_root}")
    return lines


def _say(job: ProtectJob, line: str) -> None:
    if not job.quiet:
        tell(line)
