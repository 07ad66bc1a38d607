"""One probe: a method fitted at one bound to all but the validation part, its saved bytes, and what they teach."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap

from medveil.config import plain
from medveil.dataset import Batch, Dataset, Subset, View
from medveil.errors import UserError
from medveil.kernels import NanGradient
from medveil.launch.audit.train import Place, done_once
from medveil.launch.exploiters.attacks import Chain, Thief, parse_attack
from medveil.launch.exploiters.config import ExploiterConfig
from medveil.launch.exploiters.training import train_exploiter
from medveil.launch.reading import STORED
from medveil.launch.release.compare import batch_size
from medveil.launch.results import Outcome
from medveil.launch.running.files import sha256_of
from medveil.launch.running.processes import Processes
from medveil.launch.running.runs import Run, owned
from medveil.launch.running.runtime import DIVERGED, ProcessRuntime, running
from medveil.launch.target.config import LAST
from medveil.launch.target.words import METRIC
from medveil.metrics import psnr
from medveil.protector import Empty, Protector
from medveil.quantise import quantise
from medveil.runtime import Runtime, batches

_SAVED, _KEPT = "saved.npy", "probe.json"


@dataclass(frozen=True)
class Bench:
    """What probes have in common: ``fitted``, which is protected, and ``held``, on whose originals models are tested.

    ``fingerprint``: of both. ``empty``: what becomes of samples with nothing to protect. ``exploiters``: one a seed.
    """

    fitted: Dataset
    held: Dataset
    fingerprint: str
    empty: Empty
    place: Place
    processes: Processes
    exploiters: Sequence[ExploiterConfig]

    def clean(self) -> list[float]:
        """What the originals teach, in percent, for each seed."""
        return [self._reached(self.fitted, "originals", "none", config) for config in self.exploiters]

    def scores(self, saved: "Saved", attack: str) -> list[float]:
        """What ``saved`` teaches a thief who tries ``attack``, in percent, for each seed."""
        return [self._reached(saved.released, saved.name, attack, config) for config in self.exploiters]

    def _reached(self, data: Dataset, name: str, attack: str, config: ExploiterConfig) -> float:
        """Of an attack with several settings, with the one that does best on the thief's own validation images."""
        metric, variants = METRIC[data.task], parse_attack(attack).variants()
        outcomes = [self._trained(data, name, chain, config, len(variants) > 1) for chain in variants]
        best = max(outcomes, key=lambda one: one.validation.get(metric, 0.0)) if len(outcomes) > 1 else outcomes[0]
        return highest(best, metric)

    def _trained(self, data: Dataset, name: str, chain: Chain, config: ExploiterConfig, compared: bool) -> Outcome:
        """Of one training, done or read. ``compared``: with other settings of the attack, on validation images."""
        validate = chain.chooses or compared
        originals = self.fitted if validate or chain.needs("originals") else None
        thief = Thief(originals=originals, model=config.model)

        def work(_: Run | None, runtime: ProcessRuntime) -> Outcome:
            return train_exploiter(data, self.held, config, runtime, chain, thief=thief, validate=validate)

        values = {"job": "probe", "exploiter": plain(config), "attack": str(chain), "noise": name, "validate": validate}
        label = f"{config.model} on {name}, attack {chain}, seed {config.seed}"
        return done_once(work, values, [self.fingerprint], self.place, self.processes, label)


@dataclass(frozen=True)
class Saved:
    """The saved bytes of a probe.

    ``name``: their hash; ``released``: the samples as a thief gets them; ``psnr``: in dB, mean over those changed.
    """

    name: str
    released: Dataset
    psnr: float


def protect(bench: Bench, protector: Protector, label: str, chosen: Mapping[str, Any]) -> Saved:
    """Fit ``protector`` to the bench's images, or go on with it, and keep what it makes of them.

    ``chosen``: threads and precision. Raises UserError where the fit diverges or changes nothing.
    """
    place, data = bench.place, bench.fitted
    config = {"job": "probe fit", "method": protector.name, "options": plain(protector.config), "empty": bench.empty}
    config |= {"threads": chosen["threads"], "precision": chosen["precision"]}
    torch.set_num_threads(chosen["threads"])
    with owned(bench.processes, place.runs, config, bench.fingerprint, _made) as (run, made):
        assert run is not None
        if made is None:
            precision, every = chosen["precision"], place.checkpoint_seconds
            with running(bench.processes, run, precision, label, every, place.quiet) as runtime:
                try:
                    protector.fit(data, runtime)
                except NanGradient:
                    raise UserError(DIVERGED) from None
                runtime.progress.close()
                made = _keep(bench, protector, run, runtime)
            run.note(_KEPT, made)
        kept = Kept(**made)
        if not kept.changed:
            raise UserError(f"{label}: no saved image differs from its original: nothing can be measured")
        whole = AsSaved(data, np.load(run.path / _SAVED, mmap_mode="r", allow_pickle=False))
        # By its bytes, so that two recipes that come to the same noise are trained on once.
        known = hashlib.sha256(f"{sha256_of(run.path / _SAVED)} {kept.released}".encode()).hexdigest()[:16]
        return Saved(known, Subset(whole, kept.released), kept.psnr)


@dataclass(frozen=True)
class Kept:
    """The note of a probe: ``released``, the samples that a release would hold; how many of them are ``changed``."""

    __pydantic_config__ = STORED

    released: list[int]
    changed: int
    psnr: float


@dataclass(frozen=True)
class AsSaved(View):
    """``data`` with ``images`` uint8 [N, C, H, W] in place of its own."""

    images: npt.NDArray[np.uint8]

    def read(self, indices: Sequence[int]) -> Batch:
        batch = self.data.read(indices)
        return Batch(torch.from_numpy(self.images[list(indices)]), batch.targets, batch.ids)


def _made(run: Run) -> dict[str, Any] | None:
    note = run.read_note(_KEPT, Kept)
    if note is None or not (run.path / _SAVED).is_file():
        return None
    return plain(note)


def _keep(bench: Bench, protector: Protector, run: Run, runtime: Runtime) -> dict[str, Any]:
    """Write the protected images as bytes; returns the fields of :class:`Kept`."""
    data, levels = bench.fitted, protector.budget().levels
    partial = run.path / f"{_SAVED}.partial"
    shape = (len(data), data.channels, *data.size)
    images = open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    released, decibels = [], []
    for some in batches(range(len(data)), batch_size(data.size)):
        batch = data.read(some)
        made = protector.perturb(batch.images.to(runtime.device), batch.targets.to(runtime.device), batch.ids)
        saved = quantise(made.cpu(), batch.images, levels)
        images[some[0] : some[-1] + 1] = saved.numpy()
        for i, index in enumerate(some):
            changed = not torch.equal(saved[i], batch.images[i])
            if changed:
                decibels.append(psnr(batch.images[i], saved[i]))
            if changed or bench.empty != "drop":
                released.append(index)
    images.flush()
    run.check_owner()
    partial.replace(run.path / _SAVED)
    return plain(Kept(released, len(decibels), fmean(decibels) if decibels else 0.0))


def highest(outcome: Outcome, metric: str) -> float:
    """The highest of the :data:`LAST` last values of a learning curve, in percent."""
    moments = [float(moment[metric]) for moment in outcome.curve[-LAST:]]
    return 100 * max([outcome.last[metric], *moments])


def check_reach(attacks: Sequence[str], data: Dataset) -> None:
    """Raise UserError for an attack that takes what a calibration does not have, such as weights."""
    for attack in attacks:
        if (lacking := parse_attack(attack).lacks(Thief(originals=data), data)) is not None:
            raise UserError(f"--attacks {attack}: {lacking}")


def fingerprint_of(source: str, fitted: Dataset, held: Dataset) -> str:
    """sha256 over the data set's own ``source`` and the ids on both sides."""
    ids = ["\x1f".join(data.ids) for data in (fitted, held)]
    return hashlib.sha256("\n".join([source, *ids]).encode()).hexdigest()


def seeded(config: ExploiterConfig, count: int) -> list[ExploiterConfig]:
    """``config`` with ``count`` seeds."""
    return [replace(config, seed=seed) for seed in range(count)]


def folder_of(run_root: Path) -> Path:
    """Where probes are kept, in the private run of the release."""
    return run_root / "target"
