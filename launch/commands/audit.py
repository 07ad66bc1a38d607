"""``medveil audit``: train exploiters on a release, and on the original, and test both on clean images."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

from medveil.errors import UserError
from medveil.launch.audit.authorised import METRIC, AuthorisedJob, run_authorised
from medveil.launch.audit.likeness import compare_images
from medveil.launch.audit.plan import AuditPlan, plan_audit
from medveil.launch.audit.samples import Part
from medveil.launch.audit.train import Place, Trial, exploit, pick_preset
from medveil.launch.exploiters.attacks import parse_attacks
from medveil.launch.exploiters.config import ExploiterConfig, Preset, exploiter_config
from medveil.launch.exploiters.models import WITH_WIDTH, check_model
from medveil.launch.release.manifest import MANIFEST
from medveil.launch.results import CellResult, Exploiter, Options, Outcome, Portion
from medveil.launch.running.files import make_private, sha256_of
from medveil.launch.running.machine import Device, Precision
from medveil.launch.running.processes import Processes, joined
from medveil.metrics import shown
from medveil.version import versions

_TUNABLE = (
    "width",
    "epochs",
    "iterations",
    "batch_size",
    "optimizer",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "decay_every",
    "augmentation",
    "evaluations",
    "embedding",
)
"""Fields of ExploiterConfig that are flags; the model and the seed have lists of their own."""


def add_arguments(parser: argparse.ArgumentParser, _: Sequence[str] = ()) -> None:
    """The flags of ``medveil audit``."""
    add = parser.add_argument
    add("release", type=Path, metavar="RELEASE", help="a release written by medveil protect")
    add("--original", metavar="DATA", help="what the release was made from: adds the clean row, PSNR and SSIM")
    add(
        "--test",
        metavar="DATA",
        help="clean images to test on (default: own test split, else those held out)",
    )
    add(
        "--part",
        choices=get_args(Portion),
        default="all",
        help="train on its unprotected or its protected images alone (default: all)",
    )
    add(
        "--run",
        type=Path,
        metavar="DIR",
        help="the release's private run, which knows what is protected and held out (default: .RELEASE.run)",
    )
    add(
        "--authorised",
        metavar="DATA",
        help="instead: how a segmentation model, trained on this clean set, sees released and original images",
    )
    add("--exploiter", metavar="LIST", help="models, such as unet,smp:unetplusplus:resnet34")
    add("--attacks", default="none", metavar="LIST", help="standard, full, or such as none,blur,jpeg30+adv4")
    add("--weights", type=Path, metavar="FILE", help="pretrained weights, for the attacks that take some")
    add(
        "--preset",
        choices=["auto", *get_args(Preset)],
        default="auto",
        help="how to train (auto: gpu where there is one)",
    )
    add("--seeds", default="0", metavar="LIST", help="such as 0,1,2")
    add("--out", type=Path, metavar="DIR", help="private folder for runs and records (default: RELEASE.audit)")
    add("--cache", type=Path, metavar="DIR", help="for sets larger than memory, unpacked (default: OUT/cache)")
    add("--size", type=int, help="side in pixels that the exploiter resizes the images of folders to")
    add("--threads", type=int, help="CPU threads (default: torch's own choice, at most 4)")
    add("--precision", choices=get_args(Precision), help="of network interiors (default: bf16 on a GPU, else fp32)")
    add("--device", choices=get_args(Device), default="auto")
    for name in _TUNABLE:
        add(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"instead of the preset's {name}")


def main(args: argparse.Namespace) -> int:
    """``medveil audit``: records under OUT, a table on the screen; returns 0 when every training is done."""
    release: Path = args.release
    attacks = parse_attacks(args.attacks)
    out: Path = args.out or release.resolve().with_name(f"{release.resolve().name}.audit")
    opener = _place(args, out).opener
    plan = plan_audit(release, args.original, args.test, args.size, args.part, opener, args.run)
    if args.authorised is not None:
        make_private(out)
        _audit_authorised(args, plan, out, _seeds(args), _tuned(args))
        return 0
    with joined(args.device) as processes:
        first = processes.rank == 0
        configs = _configs(args, plan, processes)
        likeness = None
        if first:
            make_private(out)
            for line in _headlines(release, plan, configs, attacks):
                print(line, flush=True)
            if args.original is not None:
                likeness = compare_images(release, args.original, args.size, out / "pictures.npz", opener)
        cells = []
        for config in configs:
            for attack in attacks:
                cell = _audit(plan, config, attack, _place(args, out), args, processes)
                if likeness is not None:
                    cell = replace(
                        cell,
                        psnr=likeness.psnr,
                        ssim=likeness.ssim,
                        roi_psnr=likeness.roi_psnr,
                        similarity=likeness.similarity,
                        pictures="../pictures.npz",
                    )
                if first:
                    folder = out / cell.folder_name
                    make_private(folder)
                    cell.save(folder / "result.json")
                cells.append(cell)
    if first:
        print("\n".join([*table(cells), f"records, not to be published: {out}"]), flush=True)
    return 0


def _audit(
    plan: AuditPlan, config: ExploiterConfig, attack: str, place: Place, args: argparse.Namespace, processes: Processes
) -> CellResult:
    """Train on the original, if there is one, and on the release, with the same budget."""

    def train(part: Part, side: str) -> Outcome:
        label = f"{config.model} on {side} images, attack {attack}, seed {config.seed}"
        trial = Trial(part, plan.test, config, attack, plan.clean, args.weights, args.run)
        return exploit(trial, place, processes, label)

    clean = train(plan.clean, "clean") if plan.clean is not None else None
    protected = train(plan.train, "protected")
    return CellResult(
        data=plan.data,
        protector=plan.protector,
        options=plan.options,
        exploiter=_exploiter(config, _tuned(args), pick_preset(args.preset, processes), args.part),
        attack=attack,
        seed=config.seed,
        status="done",
        clean=clean,
        protected=protected,
        seconds=protected.seconds + (clean.seconds if clean else 0.0),
        versions=versions(),
        release=sha256_of(args.release / MANIFEST),
        release_name=args.release.resolve().name,
    )


def _place(args: argparse.Namespace, out: Path) -> Place:
    return Place(
        out / "runs",
        device=args.device,
        threads=args.threads,
        precision=args.precision,
        cache=args.cache or out / "cache",
    )


def _exploiter(config: ExploiterConfig, told: Mapping[str, str], preset: str, part: Portion) -> Exploiter:
    """For the record: the settings of ``config`` that the user gave."""
    return Exploiter(config.model, Options({name: getattr(config, name) for name in told}), preset, part)


def _configs(args: argparse.Namespace, plan: AuditPlan, processes: Processes) -> list[ExploiterConfig]:
    """One per exploiter and seed. Raises UserError before anything is trained."""
    preset = pick_preset(args.preset, processes)
    options, seeds = _tuned(args), _seeds(args)
    default = exploiter_config(plan.task, preset, plan.size).model
    models = _listed(args.exploiter or default, "--exploiter")
    narrowed = any(model in WITH_WIDTH for model in models)
    configs = []
    for model in models:
        # In a mixed list --width is for those that have one; alone with a model that has none it is a mistake.
        own = {key: value for key, value in options.items() if key != "width" or model in WITH_WIDTH or not narrowed}
        for seed in seeds:
            config = exploiter_config(plan.task, preset, plan.size, {**own, "model": model, "seed": seed})
            check_model(config.model, plan.task, config.width)
            configs.append(config)
    return configs


def _tuned(args: argparse.Namespace) -> dict[str, str]:
    return {name: value for name in _TUNABLE if (value := getattr(args, name)) is not None}


def _seeds(args: argparse.Namespace) -> list[int]:
    seeds = _listed(args.seeds, "--seeds")
    if not all(seed.isdecimal() for seed in seeds):
        raise UserError(f"--seeds {args.seeds}: give whole numbers from 0 on, such as 0,1,2")
    return [int(seed) for seed in seeds]


def _listed(text: str, flag: str) -> list[str]:
    """The parts of ``a,b,c``, each once, in order."""
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise UserError(f"{flag} is empty: name at least one")
    return parts


def _headlines(release: Path, plan: AuditPlan, configs: Sequence[ExploiterConfig], attacks: Sequence[str]) -> list[str]:
    height, width = plan.size
    trainings = len(configs) * len(attacks) * (1 if plan.clean is None else 2)
    train, test = plan.train.open(), plan.test.open()
    config = configs[0]
    length = f"{config.epochs} epochs" if config.epochs else f"{config.iterations} iterations"
    return [
        f"auditing {release}: {len(train)} images of {width}x{height}, method {plan.protector}; "
        f"{len(test)} clean test images of {plan.test.spec}",
        *plan.notes,
        f"{trainings} trainings of {length} at batch size {config.batch_size}",
    ]


def table(cells: Sequence[CellResult]) -> list[str]:
    """Lines of text: percent, mean and sample standard deviation over seeds; PSNR and SSIM at the end."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.exploiter_text, cell.attack), []).append(cell)
    rows = [["exploiter", "attack", "metric", "clean", "protected", "best", "inside clean", "inside protected"]]
    for (exploiter, attack), same in groups.items():
        clean = [cell.clean for cell in same if cell.clean]
        protected = [cell.protected for cell in same if cell.protected]
        for metric in protected[0].last:
            columns = [(clean, "last"), (protected, "last"), (protected, "best")]
            columns += [(clean, "inside"), (protected, "inside")]
            values = [_spread(outcomes, which, metric) for outcomes, which in columns]
            rows.append([exploiter, attack, metric, *values])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(
        "percent on clean test images after the last epoch; best: the best epoch; inside: on the training images"
    )
    if cells[0].psnr is not None and cells[0].ssim is not None:
        lines.append(
            f"PSNR {cells[0].psnr:.2f} dB, SSIM {cells[0].ssim:.4f} (means over the images that changed)"
            if math.isfinite(cells[0].psnr)
            else "the released images are the originals: nothing changed"
        )
    if alike := {name: value for name, value in cells[0].similarity.items() if name not in ("psnr", "ssim")}:
        said = ", ".join(f"{name} {100 * value:.1f}%" for name, value in alike.items())
        lines.append(f"similarity over at most 256 of them: {said}")
    return lines


def _spread(outcomes: Sequence[Outcome], which: str, metric: str) -> str:
    found: list[dict[str, float]] = [getattr(outcome, which) for outcome in outcomes]
    values = [shown(metric, one[metric]) for one in found if metric in one]
    if not values:
        return "-"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _audit_authorised(
    args: argparse.Namespace, plan: AuditPlan, out: Path, seeds: Sequence[int], options: dict[str, Any]
) -> None:
    """The part of ``medveil audit`` that ``--authorised`` asks for: records under ``out`` and a line for each seed."""
    if args.original is None:
        raise UserError("--authorised compares released images with their originals: give --original DATA")
    model = args.exploiter or "unet"
    for seed in seeds:
        job = AuthorisedJob(
            place=_place(args, out),
            trained_on=args.authorised,
            release=args.release,
            original=args.original,
            test=args.test,
            size=args.size,
            preset=args.preset,
            options={**options, "model": model},
            seed=seed,
        )
        outcome = run_authorised(job)
        exploiter = Exploiter(model, Options(options), args.preset, authorised=Path(args.authorised).stem)
        cell = CellResult(
            data=plan.data,
            protector=plan.protector,
            options=plan.options,
            exploiter=exploiter,
            attack="",
            seed=seed,
            status="done",
            protected=outcome,
            versions=versions(),
            release=sha256_of(args.release / MANIFEST),
            release_name=args.release.resolve().name,
        )
        folder = out / cell.folder_name
        make_private(folder)
        cell.save(folder / "result.json")
        reached = ", ".join(f"{key} {100 * value:.1f}" for key, value in outcome.inside.items())
        print(
            f"{model} trained on clean images of {args.authorised} ({reached}) decides "
            f"{100 * outcome.last[METRIC]:.2f}% of the pixels differently on the released images, seed {seed}",
            flush=True,
        )
