"""One exploiter training: from a release or an original to an outcome on clean test data, in a run directory."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from medveil.errors import UserError
from medveil.launch.audit.plan import plan_audit, without_overlap
from medveil.launch.audit.samples import Selection, open_alike, tested_on
from medveil.launch.audit.trial import Trial
from medveil.launch.data import Opener, split_holdout
from medveil.launch.data.config import AS_THEY_ARE, Reading
from medveil.launch.exploiters.attacks import Chain, OutOfReach
from medveil.launch.exploiters.config import Preset, exploiter_config
from medveil.launch.exploiters.training import train_exploiter
from medveil.launch.reading import STORED, read_own
from medveil.launch.release.manifest import MANIFEST, Manifest
from medveil.launch.release.originals import classes_of_part, ids_of_part
from medveil.launch.release.private import PrivateManifest
from medveil.launch.results import Outcome, Portion
from medveil.launch.running.machine import MOST_THREADS, Machine, Precision
from medveil.launch.running.processes import Processes, joined
from medveil.launch.running.runs import DONE, Run, owned, run_name
from medveil.launch.running.runtime import ProcessRuntime, running, threads_by_default


@dataclass(frozen=True)
class Place(Machine):
    """Where and how trainings run. ``runs``: where their run directories lie, and a set larger than memory is unpacked
    to without ``cache``. ``skip_bad``: as of :class:`medveil.launch.data.opening.Opener`.
    """

    runs: Path
    skip_bad: bool = False
    reading: Reading = AS_THEY_ARE

    def precision_on(self, device: torch.device) -> Precision:
        return self.precision or ("bf16" if device.type == "cuda" else "fp32")

    @property
    def opener(self) -> Opener:
        return Opener(self.cache or self.runs / "cache", self.skip_bad, self.reading)


@dataclass(frozen=True)
class ExploitJob:
    """One training, as plain values that can be pickled.

    ``release``: what is trained on, ``part`` of it; None: the original, that is its samples that ``like`` (a release)
    has, or without ``like`` all but the share ``holdout``. Tested on what
    :func:`medveil.launch.audit.plan.plan_audit` chooses, or for an original without ``like`` on its own test part, else
    on the share ``holdout``. ``preset`` ("auto": "gpu" where there is one, else "cpu") with ``options`` (fields of
    ExploiterConfig) over it. ``weights``: a file of pretrained weights, for attacks that take one.
    """

    place: Place
    release: Path | None = None
    part: Portion = "all"
    original: str | None = None
    test: str | None = None
    like: Path | None = None
    size: int | None = None
    holdout: float = 0.0
    preset: Preset | Literal["auto"] = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    attack: str = "none"
    weights: Path | None = None
    seed: int = 0


def run_exploit(job: ExploitJob) -> Outcome:
    """Do the job, go on with it where it was cut, or return what it reached when it is finished already.

    Raises UserError for what the user can mend, Interrupted when asked to stop (the state is saved).
    """
    with joined(job.place.device) as processes:
        train, test, clean = _selections(job)
        source = train.source
        preset = pick_preset(job.preset, processes)
        options = {**job.options, "seed": job.seed}
        config = exploiter_config(source.data.task, preset, source.data.size, options)
        side = "clean" if job.release is None else "protected" if job.part == "all" else f"the {job.part} part of"
        label = f"{config.model} on {side} {source.name}, attack {job.attack}, seed {job.seed}"
        trial = Trial(train, test, config, job.attack, clean, job.weights)
        return exploit(trial, job.place, processes, label)


@dataclass(frozen=True)
class TrialJob:
    """A training in a process of its own, as plain values that can be pickled."""

    trial: Trial
    place: Place


def run_trial(job: TrialJob) -> Outcome:
    """Do it, as :func:`exploit`."""
    with joined(job.place.device) as processes:
        return exploit(job.trial, job.place, processes)


def exploit(trial: Trial, place: Place, processes: Processes, label: str | None = None) -> Outcome:
    """Do ``trial`` in a run directory of ``place``; every rank returns the outcome.

    An attack with several settings is tried with each, and the one that does best on validation images is returned.
    Raises OutOfReach when the attack takes something that is not there.
    """
    variants = trial.variants
    outcomes = [_exploit(trial, one, place, processes, label or trial.label) for one in variants]
    if len(outcomes) == 1:
        return outcomes[0]
    metric = next(iter(outcomes[0].last))
    best = max(range(len(outcomes)), key=lambda i: outcomes[i].validation[metric])
    return replace(outcomes[best], chosen=str(variants[best]))


def finished(trial: Trial, place: Place, processes: Processes) -> bool:
    """Whether :func:`exploit` has only to read what was done before."""
    for attack in trial.variants:
        values, known = trial.identity(attack)
        if not any((run / DONE).is_file() for run in _runs_of(_whole(values, place, processes), _digest(known), place)):
            return False
    return True


def _exploit(trial: Trial, attack: Chain, place: Place, processes: Processes, label: str) -> Outcome:
    # What the run is known by does not ask how the images are looked at.
    known, trial = trial.identity(attack), trial.opened()
    train, test, config = trial.train, trial.test, trial.config
    thief = trial.thief(attack, place.runs / "copies")
    if (lacking := attack.lacks(thief, train.open())) is not None:
        raise OutOfReach(f"--attacks {attack}: {lacking}")
    validate = trial.validates(attack)

    def work(run: Run | None, runtime: ProcessRuntime) -> Outcome:
        data, tested = train.open(), open_alike(test, train)
        if run is not None:
            run.log(f"{label}: {len(data)} images of {train.spec}, tested on {len(tested)} of {test.spec}")
        folder = Path(train.spec)
        private = PrivateManifest.find(folder, trial.private) if (folder / MANIFEST).is_file() else None
        if private is None:
            return train_exploiter(
                data, tested, config, runtime, attack, thief=thief, validate=validate, regions=trial.regions
            )
        source, manifest = train.source, Manifest.read(folder)
        ids = ids_of_part(source, manifest, private, "protected") if config.embedding else []
        outcome = train_exploiter(data, tested, config, runtime, attack, ids, thief, validate, trial.regions)
        return replace(outcome, protected_classes=classes_of_part(source, manifest, private))

    return done_once(work, *known, place, processes, label)


def done_once(
    work: Callable[[Run | None, ProcessRuntime], Outcome],
    values: Mapping[str, Any],
    fingerprints: Sequence[str],
    place: Place,
    processes: Processes,
    label: str,
) -> Outcome:
    """What ``work`` returns, or returned when it was done before, in the run directory of ``values``.

    A run belongs to its number of threads, so that one that was cut goes on to the same bytes. One that is complete
    counts whatever its threads were: they change sums in their last digits, as another processor does.
    ``fingerprints``: of the data. ``work`` gets rank 0's run (None elsewhere); every rank returns the outcome.
    """
    begun = time.monotonic()
    config = _whole(values, place, processes)
    precision: Precision = config["precision"]
    torch.set_num_threads(config["threads"])
    before = processes.from_first(lambda: _reached_before(config, _digest(fingerprints), place))
    if before is not None:
        return Outcome(**before)
    with ExitStack() as stack:
        run, done = stack.enter_context(
            owned(processes, place.runs, config, _digest(fingerprints), lambda run: _outcome_in(run.path))
        )
        if done is not None:
            return Outcome(**done)
        runtime = stack.enter_context(running(processes, run, precision, label, place.checkpoint_seconds, place.quiet))
        outcome = work(run, runtime)
        if run is not None:
            run.finish(asdict(_Done(outcome, time.monotonic() - begun)))
    return outcome


@dataclass(frozen=True)
class _Done:
    """What a run that is complete reached, and how long its last start took in seconds."""

    __pydantic_config__ = STORED

    outcome: Outcome
    wall: float


def _runs_of(config: Mapping[str, Any], fingerprint: str, place: Place) -> Iterator[Path]:
    """The runs of ``config`` that there are, that of its own number of threads first."""
    there = {path.name for path in place.runs.iterdir()} if place.runs.is_dir() else set()
    counts = sorted(range(1, MOST_THREADS + 1), key=lambda count: count != config["threads"])
    names = (run_name({**config, "threads": count}, fingerprint) for count in counts if there)
    return (place.runs / name for name in names if name in there)


def _reached_before(config: Mapping[str, Any], fingerprint: str, place: Place) -> dict[str, Any] | None:
    """The outcome of a complete run of ``config``, of any number of threads."""
    found = map(_outcome_in, _runs_of(config, fingerprint, place))
    return next((outcome for outcome in found if outcome is not None), None)


def _outcome_in(run: Path) -> dict[str, Any] | None:
    """What the run in the folder ``run`` reached; None where it is not complete."""
    done = read_own(_Done, run / DONE)
    return None if done is None else asdict(done.outcome)


def _whole(values: Mapping[str, Any], place: Place, processes: Processes) -> dict[str, Any]:
    """``values`` with what of ``place`` the outcome depends on too."""
    threads = max(1, threads_by_default() // processes.world) if place.threads is None else place.threads
    return {**values, "threads": threads, "precision": place.precision_on(processes.device)}


def _digest(fingerprints: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()


def pick_preset(preset: Preset | Literal["auto"], processes: Processes) -> Preset:
    """``auto`` is "gpu" where there is one, else "cpu"."""
    if preset == "auto":
        return "gpu" if processes.device.type == "cuda" else "cpu"
    return preset


def _selections(job: ExploitJob) -> tuple[Selection, Selection, Selection | None]:
    """What the job trains on, what it is tested on, and the originals of the first."""
    if job.release is not None:
        plan = plan_audit(job.release, job.original, job.test, job.size, job.part, job.place.opener)
        return plan.train, plan.test, plan.clean
    if job.original is None:
        raise UserError("there is nothing to train on: give a release or an original")
    if job.like is not None:
        plan = plan_audit(job.like, job.original, job.test, job.size, opener=job.place.opener)
        assert plan.clean is not None
        return plan.clean, plan.test, plan.clean
    train = Selection(job.original, size=job.size, opener=job.place.opener)
    source, held_out = train.source, None
    if job.holdout:
        rest, held = split_holdout(source.data, job.holdout, 0, source.grouped())
        held_out = replace(train, ids=tuple(source.data.ids[i] for i in held))
        train = replace(train, ids=tuple(source.data.ids[i] for i in rest))
    if job.test is not None:
        test = tested_on(job.test, train)
    elif source.test is not None:
        test = replace(train, split="test", ids=None)
    elif held_out is not None:
        test = held_out
    else:
        raise UserError(f"{job.original} has no test part of its own: hold a share out, or give --test DATA")
    return train, without_overlap(test, job.test is None, [train])[0], train
