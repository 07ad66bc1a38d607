"""The trainings of an audit: which ones, how long they will take, and all of them side by side on the cores."""

import hashlib
import itertools
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from medveil.errors import UserError
from medveil.launch.audit.plan import AuditPlan
from medveil.launch.audit.samples import originals_by_id
from medveil.launch.audit.train import Place, TrialJob, exploit, finished
from medveil.launch.audit.trial import Trial
from medveil.launch.errors import Interrupted, tell
from medveil.launch.exploiters.attacks import Thief, parse_attack
from medveil.launch.exploiters.config import ExploiterConfig
from medveil.launch.exploiters.pace import seconds_per_step, steps_of
from medveil.launch.jobs.job import Job, Record
from medveil.launch.jobs.local import run_side_by_side
from medveil.launch.results import Outcome
from medveil.launch.running.processes import Processes
from medveil.metrics import HEADLINE
from medveil.runtime import SingleProcess

WORST = 3
"""So many of the worst attacks are trained with more seeds, so that there is a spread where it matters."""

MORE_SEEDS = 2


@dataclass(frozen=True)
class Battery:
    """What is to be trained: ``configs`` (one for each exploiter and seed) against every one of ``attacks``.

    ``clean_under_attack``: the originals are trained on under each attack too, rather than without one alone.
    ``weights``, ``private``, ``look``: as in :class:`Trial`. ``skipped``: models and attacks that are out of their
    reach, and why.
    """

    plan: AuditPlan
    configs: Sequence[ExploiterConfig]
    attacks: Sequence[str]
    clean_under_attack: bool
    weights: Path | None = None
    private: Path | None = None
    skipped: Mapping[tuple[str, str], str] = field(default_factory=dict)
    look: str = "first"

    def protected(self, config: ExploiterConfig, attack: str) -> Trial:
        return self._trial("protected", config, attack)

    def clean(self, config: ExploiterConfig, attack: str) -> Trial | None:
        """The training on the originals that stands beside that on the release, if there is one."""
        if self.plan.clean is None or not (self.clean_under_attack or attack == "none"):
            return None
        return self._trial("clean", config, attack)

    def within_reach(self, config: ExploiterConfig) -> list[str]:
        return [attack for attack in self.attacks if (config.model, attack) not in self.skipped]

    def trials(self) -> list[Trial]:
        """Every training, the longest first, so that none is left alone at the end."""
        both = [
            (self.clean(config, attack), self.protected(config, attack))
            for config in self.configs
            for attack in self.within_reach(config)
        ]
        found = [trial for pair in both for trial in pair if trial is not None]
        return sorted(found, key=lambda trial: -parse_attack(trial.attack).factor)

    def deeper(self, outcomes: Mapping[Trial, Outcome]) -> "Battery":
        """The attacks that scored highest, against the same exploiters with other seeds."""
        metric, attacks = HEADLINE[self.plan.task], list[str]()
        for config in self.configs:
            reached = {attack: outcomes[self.protected(config, attack)] for attack in self.within_reach(config)}
            scores = {attack: outcome.last[metric] for attack, outcome in reached.items()}
            attacks += sorted(scores, key=lambda attack: -scores[attack])[:WORST]
        return self._more_seeds(list(dict.fromkeys(attacks)))

    def dearest(self) -> "Battery":
        """What :meth:`deeper` costs at most, for an estimate: the attacks that take longest, with other seeds."""
        attacks = dict.fromkeys(attack for config in self.configs for attack in self.within_reach(config))
        return self._more_seeds(sorted(attacks, key=lambda attack: -parse_attack(attack).factor)[:WORST])

    def _more_seeds(self, attacks: Sequence[str]) -> "Battery":
        more = range(1, MORE_SEEDS + 1)
        configs = [replace(config, seed=config.seed + seed) for config in self.configs for seed in more]
        return replace(self, configs=configs, attacks=attacks)

    def _trial(self, side: str, config: ExploiterConfig, attack: str) -> Trial:
        train = self.plan.train if side == "protected" else self.plan.clean
        assert train is not None
        return Trial(
            train, self.plan.test, config, attack, self.plan.clean, self.weights, self.private, side, self.look
        )


def out_of_reach(
    plan: AuditPlan, models: Iterable[str], attacks: Iterable[str], weights: Path | None
) -> dict[tuple[str, str], str]:
    """Why attacks cannot be tried, or need not be, by model and name; those that can are left out."""
    originals = None if plan.clean is None else originals_by_id(plan.clean, plan.train)
    data, found = plan.train.open(), {}
    for model, attack in itertools.product(dict.fromkeys(models), attacks):
        thief = Thief(originals=originals, weights=weights, model=model)
        if (why := parse_attack(attack).lacks(thief, data)) is not None:
            found[model, attack] = why
    return found


def workers_by_default(device: torch.device, threads: int | None) -> int:
    """How many jobs of so many threads (None: of all) run side by side: what the cores take, one alone on a GPU."""
    cores = len(os.sched_getaffinity(0))
    return 1 if device.type == "cuda" else max(1, cores // (threads or cores))


def estimate(trials: Sequence[Trial], place: Place, processes: Processes, workers: int) -> float:
    """Seconds that ``trials`` will take, from a few steps measured here and now in the precision of ``place``."""
    first = trials[0]
    torch.set_num_threads(place.threads or torch.get_num_threads())
    dtype = torch.bfloat16 if place.precision_on(processes.device) == "bf16" else torch.float32
    opened = first.opened()
    step = seconds_per_step(opened.train.open(), first.config, SingleProcess(processes.device, dtype))
    images, tested = len(opened.train.open()), len(opened.test.open())
    steps = [steps_of(trial.config, images, tested, parse_attack(trial.attack)) for trial in trials]
    return step * max(max(steps), sum(steps) / workers)


def train_all(
    trials: Sequence[Trial], place: Place, processes: Processes, workers: int, folder: Path
) -> dict[Trial, Outcome]:
    """What every one of ``trials`` reached; those that were done before are not done again.

    With several ``workers``, each trains in a process of its own, with its log in ``folder``; else all do in turn here.
    Raises the first UserError after all have ended, Interrupted when one was asked to stop.
    """
    waiting = [trial for trial in dict.fromkeys(trials) if not finished(trial, place, processes)]
    if workers > 1 and len(waiting) > 1 and processes.world == 1:
        _side_by_side(waiting, place, workers, folder)
    return {trial: exploit(trial, place, processes) for trial in dict.fromkeys(trials)}


def _side_by_side(trials: Sequence[Trial], place: Place, workers: int, folder: Path) -> None:
    jobs = [Job(_key(trial), trial.label, TrialJob(trial, replace(place, quiet=True)), folder) for trial in trials]
    failed: list[Record] = []
    done = 0

    def listen(job: Job, record: Record) -> None:
        nonlocal done
        done += 1
        reached = ""
        if record.state == "done":
            assert record.results.outcome is not None
            metric, value = next(iter(record.results.outcome.last.items()))
            reached = f": {metric} {100 * value:.1f} after {record.seconds:.0f} s"
        else:
            failed.append(record)
        tell(f"[{done}/{len(jobs)}] {job.title}{reached or ': ' + record.status}")

    run_side_by_side(jobs, workers, listen)
    for record in failed:
        if record.state == "interrupted":
            raise Interrupted(record.results.signal or signal.SIGINT, f"with {done - len(failed)} trainings done")
        raise UserError(record.reason)


def _key(trial: Trial) -> str:
    words = "-".join([trial.config.model, trial.attack, trial.side, str(trial.config.seed)])
    readable = "".join(letter if letter.isalnum() or letter in "-+" else "-" for letter in words)
    return f"{readable}-{hashlib.sha256(repr(trial).encode()).hexdigest()[:8]}"
