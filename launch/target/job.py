"""``protect --target``: probes at several bounds, a promise or that there is none, and the release that keeps it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from medveil.dataset import Dataset, Subset
from medveil.errors import UserError
from medveil.launch.audit.train import Place
from medveil.launch.data import Opener, split_holdout
from medveil.launch.errors import tell
from medveil.launch.exploiters.attacks import parse_attack, parse_attacks
from medveil.launch.exploiters.config import exploiter_config
from medveil.launch.exploiters.pace import seconds_per_step, steps_of
from medveil.launch.protect.chosen import choose_once, would_choose
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.input import Input, check_job, grouping, make_protector, open_input
from medveil.launch.protect.job import run_protect
from medveil.launch.protect.methods import settings_of
from medveil.launch.running.estimate import fit_seconds
from medveil.launch.running.processes import Processes, joined, pick_device
from medveil.launch.running.progress import duration
from medveil.launch.target.config import SEEDS, TOP, VALIDATION, Target
from medveil.launch.target.probe import Bench, check_reach, fingerprint_of, folder_of, protect, seeded
from medveil.launch.target.search import Found, Probe, most_probes, search
from medveil.launch.target.words import probe_line, verdict
from medveil.runtime import Runtime, SingleProcess

_EVALUATIONS = 10
_IMAGES = 16


def run_target(target: Target, job: ProtectJob, dry_run: bool = False) -> bool:
    """Calibrate ``job``'s bound and recipe and do it so; returns whether there is a release.

    Whatever was probed before is not probed again. ``dry_run``: only says how long it would take at most; nothing is
    written. Raises UserError for what does not fit together, Interrupted when asked to stop.
    """
    check(target, job)
    with joined(job.device) as processes:
        if processes.world > 1:
            raise UserError("--target probes in one process: start it without torchrun or srun")
        calibration = _Calibration.of(target, job, processes, dry_run)
        tell(calibration.about())
        if dry_run:
            tell("nothing was written")
            return False
        clean = calibration.clean()
        found = calibration.find()
    tell(calibration.verdict(found, clean))
    if not found.kept:
        return False
    options = calibration.options(found.probe.recipe, found.probe.levels)
    run_protect(replace(job, options=options))
    return True


def check(target: Target, job: ProtectJob) -> None:
    """Raise UserError for a job that cannot be calibrated."""
    check_job(job)
    parse_attacks(target.attacks)
    if job.part:
        raise UserError("--target measures sets that are protected as a whole: leave --classes and --share away")


@dataclass(frozen=True)
class _Calibration:
    target: Target
    job: ProtectJob
    bench: Bench
    chosen: Mapping[str, Any]
    attacks: Sequence[str]
    recipes: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def of(target: Target, job: ProtectJob, processes: Processes, dry_run: bool) -> "_Calibration":
        given = open_input(job, Opener(job.cache, job.skip_bad, job.reading, job.fit_windows))
        fitted, held = _parted(job, given)
        attacks = parse_attacks(target.attacks)
        check_reach(attacks, fitted)
        chosen = would_choose(job, processes.device) if dry_run else choose_once(job, processes)
        torch.set_num_threads(chosen["threads"])
        machine = {"device": job.device, "threads": chosen["threads"], "precision": chosen["precision"]}
        machine |= {"cache": job.cache, "checkpoint_seconds": job.checkpoint_seconds, "quiet": True}
        place = Place(runs=folder_of(job.run_root), **machine)
        data = given.source.data
        config = exploiter_config(data.task, chosen["preset"] or "paper", data.size, {"evaluations": _EVALUATIONS})
        fingerprint = fingerprint_of(given.source.fingerprint, fitted, held)
        exploiters = seeded(config, SEEDS[target.effort])
        bench = Bench(fitted, held, fingerprint, given.empty, place, processes, exploiters)
        fitting = fitting_recipes(settings_of(job.method).recipes.get(data.task, {}), job.options)
        return _Calibration(target, job, bench, chosen, attacks, fitting)

    @property
    def goal(self) -> float:
        assert self.target.target is not None
        return self.target.target

    def options(self, recipe: str, levels: int) -> dict[str, Any]:
        return {**self.job.options, **self.recipes[recipe], "eps": levels / 255}

    def clean(self) -> list[float]:
        """What the originals teach with each seed. Raises UserError where that is no more than the target already."""
        reached = self.bench.clean()
        mean = sum(reached) / len(reached)
        if mean <= self.goal:
            raise UserError(
                f"--target {self.goal:g}: even the originals teach a model no more than {mean:.1f}, so nothing can be "
                "measured: give a lower target, more images or another --preset"
            )
        return reached

    def find(self) -> Found:
        """The search, each probe shown as it ends."""
        return search(self.goal, list(self.recipes), self.attacks, self._measure)

    def verdict(self, found: Found, clean: Sequence[float]) -> str:
        bench = self.bench
        model = bench.exploiters[0].model
        return verdict(found, self.goal, bench.held.task, model, self.attacks, clean, len(bench.held))

    def about(self) -> str:
        """What will be tried, and the most time that it takes: of all probes with all attacks, the originals and the
        release."""
        bench, begun = self.bench, time.monotonic()
        runtime = SingleProcess(pick_device(self.job.device), self._dtype())

        def fit(data: Dataset, runtime: Runtime) -> None:
            self._protector(next(iter(self.recipes)), TOP).fit(data, runtime)

        size = getattr(self._protector(next(iter(self.recipes)), TOP).config, "batch_size", _IMAGES)
        a_fit = fit_seconds(fit, bench.fitted, size, runtime.device, runtime.dtype)
        config = bench.exploiters[0]
        step = seconds_per_step(bench.fitted, config, runtime)
        chains = [parse_attack(attack) for attack in self.attacks]
        steps = sum(steps_of(config, len(bench.fitted), len(bench.held), chain) for chain in chains)
        probes, seeds = most_probes(len(self.recipes)), len(bench.exploiters)
        originals = steps_of(config, len(bench.fitted), len(bench.held), parse_attack("none"))
        whole = probes * (a_fit + step * steps * seeds) + step * originals * seeds + a_fit
        return (
            f"calibrating {self.job.method} to {self.goal:g}: at most {probes} probes of {len(bench.fitted)} images, "
            f"measured on {len(bench.held)} more with {len(chains)} attack{'s' * (len(chains) > 1)} and {seeds} "
            f"seed{'s' * (seeds > 1)} each; at most about "
            f"{duration(whole + time.monotonic() - begun)}"
        )

    def _measure(self, recipe: str, levels: int, attacks: Sequence[str], limit: float | None) -> Probe:
        label = f"{self.job.method}{f' {recipe}' if recipe else ''} at {levels} levels"
        saved = protect(self.bench, self._protector(recipe, levels), label, self.chosen)
        scores: dict[str, list[float]] = {}
        for attack in attacks:
            scores[attack] = self.bench.scores(saved, attack)
            if limit is not None and sum(scores[attack]) / len(scores[attack]) > limit:
                break
        probe = Probe(recipe, levels, saved.psnr, scores)
        tell(probe_line(probe, self.goal))
        return probe

    def _protector(self, recipe: str, levels: int) -> Any:
        job = replace(self.job, options=self.options(recipe, levels))
        return make_protector(job, self.chosen["preset"], self.chosen["seed"])

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.chosen["precision"] == "bf16" else torch.float32


def fitting_recipes(
    recipes: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """The method as the user has set it, "", and those of its recipes that change it without contradicting the user."""
    fitting: dict[str, Mapping[str, Any]] = {"": {}}
    for name, recipe in recipes.items():
        agrees = all(options.get(key, value) == value for key, value in recipe.items())
        if agrees and not recipe.items() <= options.items():
            fitting[name] = recipe
    return fitting


def _parted(job: ProtectJob, given: Input) -> tuple[Dataset, Dataset]:
    """The images that probes are made of, and those that they are measured on; groups and volumes stay together."""
    data = Subset(given.source.data, given.indices)
    rest, held = split_holdout(data, VALIDATION, job.holdout_seed, grouping(job, given.source))
    return Subset(data, rest), Subset(data, held)
