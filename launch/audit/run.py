"""A whole audit: every exploiter under every attack with every seed, on the release and on its original."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medveil.errors import UserError
from medveil.launch.audit.authorised import METRIC, AuthorisedJob, run_authorised
from medveil.launch.audit.config import Audit
from medveil.launch.audit.likeness import Likeness, compare_images
from medveil.launch.audit.plan import AuditPlan, plan_audit
from medveil.launch.audit.samples import Part
from medveil.launch.audit.table import table
from medveil.launch.audit.train import Place, Trial, exploit, pick_preset
from medveil.launch.audit.verdict import verdicts
from medveil.launch.exploiters.attacks import parse_attacks
from medveil.launch.exploiters.config import ExploiterConfig, exploiter_config
from medveil.launch.exploiters.names import WITH_WIDTH, check_model
from medveil.launch.release.manifest import MANIFEST
from medveil.launch.results import CellResult, Exploiter, Options, Outcome
from medveil.launch.running.files import check_apart, make_private, sha256_of
from medveil.launch.running.processes import Processes, joined
from medveil.version import versions


def run_audit(audit: Audit) -> list[CellResult]:
    """Train what is to be trained; keeps a record of each cell, and shows them as a table.

    Raises UserError before anything is trained for what does not fit together.
    """
    check_apart(audit.folder, audit.release, audit.original, audit.test)
    attacks = parse_attacks(audit.attacks)
    place = _place(audit)
    plan = plan_audit(audit.release, audit.original, audit.test, audit.size, audit.part, place.opener, audit.run)
    if audit.authorised is not None:
        return _with_authorised(audit, plan, place)
    with joined(audit.device) as processes:
        first = processes.rank == 0
        configs = _configs(audit, plan, processes)
        likeness = None
        if first:
            make_private(audit.folder)
            print("\n".join(_headlines(audit, plan, configs, attacks)), flush=True)
            if audit.original is not None:
                pictures = audit.folder / "pictures.npz"
                likeness = compare_images(audit.release, audit.original, audit.size, pictures, place.opener)
        cells = []
        for config in configs:
            for attack in attacks:
                cell = _alike(_trained(audit, plan, config, attack, place, processes), likeness)
                if first:
                    _keep(cell, audit.folder)
                cells.append(cell)
    if first:
        lines = [*table(cells), *verdicts(cells, plan.test.open()), f"records, not to be published: {audit.folder}"]
        print("\n".join([*lines, f"a page of tables and pictures: medveil report {audit.folder}"]), flush=True)
    return cells


def _place(audit: Audit) -> Place:
    return Place(
        audit.folder / "runs",
        device=audit.device,
        threads=audit.threads,
        precision=audit.precision,
        cache=audit.cache or audit.folder / "cache",
        checkpoint_seconds=audit.checkpoint_seconds,
    )


def _configs(audit: Audit, plan: AuditPlan, processes: Processes) -> list[ExploiterConfig]:
    """One per exploiter and seed. Raises UserError before anything is trained."""
    preset = pick_preset(audit.preset, processes)
    models = audit.exploiter or (exploiter_config(plan.task, preset, plan.size).model,)
    narrowed = any(model in WITH_WIDTH for model in models)
    configs = []
    for model in dict.fromkeys(models):
        # In a mixed list --width is for those that have one; alone with a model that has none it is a mistake.
        told = audit.options.items()
        own = {key: value for key, value in told if key != "width" or model in WITH_WIDTH or not narrowed}
        for seed in dict.fromkeys(audit.seeds):
            config = exploiter_config(plan.task, preset, plan.size, {**own, "model": model, "seed": seed})
            check_model(config.model, plan.task, config.width)
            configs.append(config)
    return configs


def _headlines(audit: Audit, plan: AuditPlan, configs: Sequence[ExploiterConfig], attacks: Sequence[str]) -> list[str]:
    height, width = plan.size
    trainings = len(configs) * len(attacks) * (1 if plan.clean is None else 2)
    train, test = plan.train.open(), plan.test.open()
    config = configs[0]
    length = f"{config.epochs} epochs" if config.epochs else f"{config.iterations} iterations"
    return [
        f"auditing {audit.release}: {len(train)} images of {width}x{height}, method {plan.protector}; "
        f"{len(test)} clean test images of {plan.test.spec}",
        *plan.notes,
        f"{trainings} trainings of {length} at batch size {config.batch_size}",
    ]


def _trained(
    audit: Audit, plan: AuditPlan, config: ExploiterConfig, attack: str, place: Place, processes: Processes
) -> CellResult:
    """Train on the original, if there is one, and on the release, with the same budget."""

    def train(part: Part, side: str) -> Outcome:
        label = f"{config.model} on {side} images, attack {attack}, seed {config.seed}"
        trial = Trial(part, plan.test, config, attack, plan.clean, audit.weights, audit.run)
        return exploit(trial, place, processes, label)

    clean = train(plan.clean, "clean") if plan.clean is not None else None
    protected = train(plan.train, "protected")
    options = Options({name: getattr(config, name) for name in audit.options})
    return _cell(
        audit,
        plan,
        exploiter=Exploiter(config.model, options, pick_preset(audit.preset, processes), audit.part),
        attack=attack,
        seed=config.seed,
        clean=clean,
        protected=protected,
        seconds=protected.seconds + (clean.seconds if clean else 0.0),
    )


def _cell(audit: Audit, plan: AuditPlan, **more: Any) -> CellResult:
    return CellResult(
        data=plan.data,
        protector=plan.protector,
        options=plan.options,
        status="done",
        versions=versions(),
        release=sha256_of(audit.release / MANIFEST),
        release_name=audit.release.resolve().name,
        **more,
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
        pictures="../pictures.npz",
    )


def _keep(cell: CellResult, folder: Path) -> None:
    make_private(folder / cell.folder_name)
    cell.save(folder / cell.folder_name / "result.json")


def _with_authorised(audit: Audit, plan: AuditPlan, place: Place) -> list[CellResult]:
    """What ``authorised`` asks for: a line for each seed."""
    if audit.original is None or audit.authorised is None:
        raise UserError("--authorised compares released images with their originals: give --original DATA")
    make_private(audit.folder)
    model, cells = ",".join(audit.exploiter) or "unet", []
    for seed in audit.seeds:
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
        )
        outcome = run_authorised(job)
        named = Path(audit.authorised).stem
        exploiter = Exploiter(model, Options(audit.options), audit.preset, authorised=named)
        cell = _cell(audit, plan, exploiter=exploiter, attack="", seed=seed, protected=outcome)
        _keep(cell, audit.folder)
        cells.append(cell)
        reached = ", ".join(f"{key} {100 * value:.1f}" for key, value in outcome.inside.items())
        print(
            f"{model} trained on clean images of {audit.authorised} ({reached}) decides "
            f"{100 * outcome.last[METRIC]:.2f}% of the pixels differently on the released images, seed {seed}",
            flush=True,
        )
    return cells
