"""A whole audit: every exploiter under every attack with every seed, on the release and on its original."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medveil.errors import UserError
from medveil.launch.audit.authorised import METRIC, AuthorisedJob, run_authorised
from medveil.launch.audit.config import Audit
from medveil.launch.audit.likeness import Likeness, compare_selections
from medveil.launch.audit.plan import AuditPlan, plan_audit
from medveil.launch.audit.table import table
from medveil.launch.audit.train import Place, finished, pick_preset
from medveil.launch.audit.trial import Trial
from medveil.launch.audit.verdict import verdicts
from medveil.launch.data import Opener
from medveil.launch.errors import tell
from medveil.launch.exploiters.attacks import parse_attacks
from medveil.launch.exploiters.attacks.names import is_a_word
from medveil.launch.exploiters.config import ExploiterConfig, Preset, exploiter_config
from medveil.launch.exploiters.models import check_known
from medveil.launch.exploiters.names import VOLUMETRIC, WITH_WIDTH, check_model
from medveil.launch.extras import require
from medveil.launch.jobs.trials import MORE_SEEDS, WORST, Battery, estimate, out_of_reach, train_all, workers_by_default
from medveil.launch.release.manifest import MANIFEST, check_outside_releases
from medveil.launch.report.records import write_record
from medveil.launch.results import CellResult, Exploiter, Options, Outcome
from medveil.launch.running.files import make_private, sha256_of
from medveil.launch.running.places import check_apart, check_place
from medveil.launch.running.processes import Processes, joined
from medveil.metrics import shown
from medveil.version import versions

FEW = 4
"""From more trainings than that on, the time is estimated before they start."""


def run_audit(audit: Audit, dry_run: bool = False) -> list[CellResult]:
    """Train what is to be trained; keeps a record of each cell, and shows them as a table.

    ``dry_run``: only says what would be trained, and about how long it would take; nothing is written.

    Raises UserError before anything is trained for what does not fit together.
    """
    if audit.authorised is not None:
        _check_alone(audit, dry_run)
    if len(audit.normalise) > 1:
        each = [replace(audit, normalise=(one,)) for one in dict.fromkeys(audit.normalise)]
        return [cell for one in each for cell in run_audit(one, dry_run)]
    check_place(audit.folder)
    check_outside_releases(audit.folder, itself=True)
    check_apart(audit.folder, audit.release, audit.original, audit.test)
    parse_attacks(audit.attacks)
    opener = Opener(audit.cache, audit.skip_bad, audit.reading) if dry_run else _place(audit, 1).opener
    plan = plan_audit(audit.release, audit.original, audit.test, audit.size, audit.part, opener, audit.run)
    if audit.authorised is not None:
        return _with_authorised(audit, plan, _place(audit, 1))
    with joined(audit.device) as processes:
        battery = _battery(audit, plan, processes)
        trials = battery.trials()
        alone = processes.device.type == "cuda" or processes.world > 1
        place = _place(audit, 1 if alone else len(trials))
        workers = 1 if alone else audit.workers or workers_by_default(processes.device, place.threads)
        likeness = None
        few = 0 if dry_run else FEW
        lines = _headlines(audit, battery, trials, place, processes, workers, few) if processes.rank == 0 else []
        if dry_run:
            tell("\n".join([*lines, "nothing was written"]))
            return []
        if processes.rank == 0:
            make_private(audit.folder)
            tell("\n".join(lines))
            if plan.clean is not None:
                # By release, as a folder may keep the audits of several.
                pictures = audit.folder / f"pictures-{_release(audit, plan)[:8]}.npz"
                likeness = compare_selections(replace(plan.train, ids=None), plan.clean, pictures)
        logs = audit.folder / "jobs"
        outcomes = train_all(trials, place, processes, workers, logs)
        batteries = [battery]
        if _goes_deeper(audit):
            batteries.append(battery.deeper(outcomes))
            if processes.rank == 0:
                tell(f"the worst {WORST} with {MORE_SEEDS} more seeds: {', '.join(batteries[1].attacks)}")
            outcomes |= train_all(batteries[1].trials(), place, processes, workers, logs)
        preset = pick_preset(audit.preset, processes)
        cells = [cell for one in batteries for cell in _cells(audit, one, outcomes, preset)]
        cells = [_alike(cell, likeness) for cell in cells]
        if processes.rank == 0:
            for cell in cells:
                write_record(cell, audit.folder / cell.folder_name)
            done = [cell for cell in cells if cell.status == "done"]
            tell("\n".join([*table(done), *verdicts(done, plan.test.open())]))
    return cells


def _goes_deeper(audit: Audit) -> bool:
    """Whether the worst attacks are trained with more seeds in the end."""
    return is_a_word(audit.attacks) and not audit.seeds


def _check_alone(audit: Audit, dry_run: bool) -> None:
    """Raise UserError for what says something of exploiters, beside --authorised, which trains none."""
    of_exploiters = {
        "--dry-run": dry_run,
        "--part": audit.part != "all",
        "--attacks": parse_attacks(audit.attacks) != ["none"],
        "--normalise": audit.normalise != ("window",),
    }
    if given := [flag for flag, said in of_exploiters.items() if said]:
        raise UserError(f"{given[0]} tells of exploiters, not of --authorised: leave one of them out")


def _battery(audit: Audit, plan: AuditPlan, processes: Processes) -> Battery:
    """What is to be trained. An attack out of reach is left out of a list that has a word, and refused by its name."""
    configs, attacks, word = _configs(audit, plan, processes), parse_attacks(audit.attacks), is_a_word(audit.attacks)
    skipped = out_of_reach(plan, [config.model for config in configs], attacks, audit.weights)
    for (_, attack), why in skipped.items():
        if not word:
            raise UserError(f"--attacks {attack}: {why}")
    return Battery(plan, configs, attacks, not word, audit.weights, audit.run, skipped, _look(audit, plan))


def _look(audit: Audit, plan: AuditPlan) -> str:
    """How the trainings look at medical files. Raises UserError for others, and for attacks, which work on bytes."""
    (how,) = audit.normalise
    if how == "window":
        return "first"
    if all(file.kind == "picture" for file in plan.train.source.files):
        raise UserError(f"--normalise {how} is for DICOM, NIfTI and 16 bits: {audit.release} has levels of 8 bits")
    if parse_attacks(audit.attacks) != ["none"]:
        raise UserError(f"--normalise {how} goes with --attacks none: attacks work on images of 8 bits")
    return how


def _cells(audit: Audit, battery: Battery, outcomes: Mapping[Trial, Outcome], preset: Preset) -> list[CellResult]:
    """The records of every training, and of the attacks that were skipped."""
    cells = []
    for config, attack in itertools.product(battery.configs, battery.attacks):
        clean = protected = None
        if (skipped := battery.skipped.get((config.model, attack))) is None:
            trial = battery.clean(config, attack)
            clean = None if trial is None else outcomes[trial]
            protected = outcomes[battery.protected(config, attack)]
        looked = {} if battery.look == "first" else {"normalise": battery.look}
        options = Options({name: getattr(config, name) for name in audit.options} | looked)
        cells.append(
            _cell(
                audit,
                battery.plan,
                status="done" if skipped is None else f"skipped: {skipped}",
                exploiter=Exploiter(config.model, options, preset, audit.part),
                attack=attack,
                seed=config.seed,
                clean=clean,
                protected=protected,
                seconds=sum(outcome.seconds for outcome in (clean, protected) if outcome is not None),
            )
        )
    return cells


def _place(audit: Audit, trainings: int) -> Place:
    """With several trainings on a CPU, each has one thread unless told: so more of them run side by side."""
    return Place(
        audit.folder / "runs",
        reading=audit.reading,
        device=audit.device,
        threads=audit.threads or (1 if trainings > 1 else None),
        precision=audit.precision,
        cache=audit.cache or audit.folder / "cache",
        checkpoint_seconds=audit.checkpoint_seconds,
        skip_bad=audit.skip_bad,
    )


def _configs(audit: Audit, plan: AuditPlan, processes: Processes) -> list[ExploiterConfig]:
    """One per exploiter and seed. Raises UserError before anything is trained."""
    preset = pick_preset(audit.preset, processes)
    models = audit.exploiter or (exploiter_config(plan.task, preset, plan.size).model,)
    narrowed = any(model in WITH_WIDTH for model in models)
    configs = []
    for model in dict.fromkeys(models):
        # In a mixed list --width is for those that have one; alone with a model that has none it is a mistake.
        options = audit.options.items()
        own = {key: value for key, value in options if key != "width" or model in WITH_WIDTH or not narrowed}
        for seed in dict.fromkeys(audit.seeds or (0,)):
            config = exploiter_config(plan.task, preset, plan.size, {**own, "model": model, "seed": seed})
            check_model(config.model, plan.task, config.width)
            check_known(config.model, plan.task)
            if config.model in VOLUMETRIC:
                require("volumes")
                if parse_attacks(audit.attacks) != ["none"]:
                    raise UserError(f"--exploiter {config.model} goes with --attacks none: attacks work on slices")
            configs.append(config)
    return configs


def _headlines(
    audit: Audit,
    battery: Battery,
    trials: Sequence[Trial],
    place: Place,
    processes: Processes,
    workers: int,
    few: int,
) -> list[str]:
    plan, config = battery.plan, battery.configs[0]
    height, width = plan.size
    train, test = plan.train.open(), plan.test.open()
    length = f"{config.epochs} epochs" if config.epochs else f"{config.iterations} iterations"
    lines = [
        f"auditing {audit.release}: {len(train)} images of {width}x{height}, method {plan.protector}; "
        f"{len(test)} clean test images of {plan.test.spec}",
        *plan.notes,
        *dict.fromkeys(f"skipped: {attack}, {why}" for (_, attack), why in battery.skipped.items()),
        f"{len(trials)} trainings of {length} at batch size {config.batch_size}, {min(workers, len(trials))} at a time",
    ]
    waiting = [trial for trial in trials if not finished(trial, place, processes)]
    if len(waiting) < len(trials):
        lines.append(f"{len(trials) - len(waiting)} of them were done before")
    if len(waiting) > few:
        more = battery.dearest().trials() if _goes_deeper(audit) else []
        minutes = estimate([*waiting, *more], place, processes, workers) / 60
        long = f"about {minutes:.0f} minutes" if minutes >= 1.5 else "about a minute"
        lines.append(long + f", the worst {WORST} with {MORE_SEEDS} more seeds among them" * bool(more))
    return lines


def _release(audit: Audit, plan: AuditPlan) -> str:
    """What tells the release from others: the hash of its manifest, or of its images where it has none."""
    manifest = audit.release / MANIFEST
    return sha256_of(manifest) if manifest.is_file() else plan.train.fingerprint()


def _cell(audit: Audit, plan: AuditPlan, **more: Any) -> CellResult:
    return CellResult(
        data=plan.data,
        protector=plan.protector,
        options=plan.options,
        versions=versions(),
        release=_release(audit, plan),
        release_name=audit.release.resolve().name,
        **{"status": "done", **more},
    )


def _alike(cell: CellResult, likeness: Likeness | None) -> CellResult:
    if likeness is None:
        return cell
    return replace(
        cell,
        psnr=likeness.psnr,
        ssim=likeness.ssim,
        roi_psnr=likeness.roi_psnr,
        similarity=likeness.similarity,
        pictures=f"../{likeness.pictures.name}",
    )


def _with_authorised(audit: Audit, plan: AuditPlan, place: Place) -> list[CellResult]:
    """What ``authorised`` asks for: a line for each seed."""
    if audit.original is None or audit.authorised is None:
        raise UserError("--authorised compares released images with their originals: give --original DATA")
    if len(audit.exploiter) > 1:
        raise UserError(f"--authorised trains one model: give --exploiter one of {', '.join(audit.exploiter)}")
    make_private(audit.folder)
    model, cells = next(iter(audit.exploiter), "unet"), []
    for seed in audit.seeds or (0,):
        job = AuthorisedJob(
            place=place,
            trained_on=audit.authorised,
            release=audit.release,
            original=audit.original,
            test=audit.test,
            size=audit.size,
            preset=audit.preset,
            options={**audit.options, "model": model},
            seed=seed,
            run=audit.run,
        )
        outcome = run_authorised(job)
        named = Path(audit.authorised).stem
        exploiter = Exploiter(model, Options(audit.options), audit.preset, authorised=named)
        cell = _cell(audit, plan, exploiter=exploiter, attack="", seed=seed, protected=outcome)
        write_record(cell, audit.folder / cell.folder_name)
        cells.append(cell)
        reached = ", ".join(f"{key} {shown(key, value):.1f}" for key, value in outcome.inside.items())
        tell(
            f"{model} trained on clean images of {audit.authorised} ({reached}) decides "
            f"{100 * outcome.last[METRIC]:.2f}% of the pixels differently on the released images, seed {seed}"
        )
    return cells
