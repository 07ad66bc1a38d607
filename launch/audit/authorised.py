"""SALM's Figures 3 and 9: what protection costs an authorised user, who runs a segmentation model on the images.

The model is trained on clean images of another set, then run on the originals and on the released images: the measure
is the share of the pixels that it decides differently.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medveil.config import plain
from medveil.dataset import Dataset, Subset
from medveil.errors import UserError
from medveil.launch.audit.plan import plan_audit
from medveil.launch.audit.train import Place, done_once, pick_preset
from medveil.launch.data import Source, split_holdout
from medveil.launch.data.combined import Formed
from medveil.launch.exploiters.config import Preset, exploiter_config
from medveil.launch.exploiters.training import trained
from medveil.launch.results import Outcome
from medveil.launch.running.files import write_arrays
from medveil.launch.running.processes import joined
from medveil.launch.running.runs import Run
from medveil.launch.running.runtime import ProcessRuntime
from medveil.quantise import to_unit
from medveil.runtime import batches

METRIC = "differing_pixels"
"""Share of the pixels that the model decides differently on the released images."""

_HOLDOUT = 0.2
_BATCH = 64
_SHOWN = 3


@dataclass(frozen=True)
class AuthorisedJob:
    """A training on clean images, as plain values that can be pickled: ``trained_on``, a set with masks, and what its
    model is then run on: ``release`` and ``original``, both at ``size`` (None: the release's own). ``test``, ``preset``
    and ``options``: as in :class:`medveil.launch.audit.train.ExploitJob`; ``run``: as of :func:`plan_audit`.
    """

    place: Place
    trained_on: str
    release: Path
    original: str
    test: str | None = None
    size: int | None = None
    preset: Preset | Literal["auto"] = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    run: Path | None = None


def run_authorised(job: AuthorisedJob) -> Outcome:
    """Train on ``job.trained_on``, run on the release and its originals; go on where it was cut.

    The outcome's ``last`` is :data:`METRIC`; its ``inside`` is how good the model is on the fifth of its own set that
    was held out. ``pictures`` names an npz of changed samples: ``original``, ``protected`` uint8 [K, H, W, C], and the
    decisions on them, ``on_original``, ``on_protected`` {0, 1} [K, H, W].
    Raises UserError when the set is not one for segmentation.
    """
    with joined(job.place.device) as processes:
        plan = plan_audit(job.release, job.original, job.test, job.size, opener=job.place.opener, run=job.run)
        assert plan.clean is not None
        released, clean = plan.train.open(), plan.clean.open()
        theirs = job.place.opener.again(job.trained_on, released.size[0])
        train, test = _split(theirs, released)
        config = exploiter_config(
            "segmentation", pick_preset(job.preset, processes), released.size, {**job.options, "seed": job.seed}
        )
        values = {"job": "authorised", "model": plain(config)}
        known = [theirs.fingerprint, plan.train.fingerprint(), plan.clean.fingerprint()]
        label = f"{config.model} for an authorised user of {plan.data}, seed {job.seed}"

        def work(run: Run | None, runtime: ProcessRuntime) -> Outcome:
            begun = time.monotonic()
            if run is not None:
                run.log(f"{label}: trained on {len(train)} images of {theirs.spec}, tested on {len(test)}")
            model, reached = trained(train, test, config, runtime)
            share, pictures = _compare(model, clean, released, runtime)
            place = ""
            if run is not None:
                path = run.path / "pictures.npz"
                write_arrays(path, pictures)
                place = str(path.absolute())
            last, seconds = {METRIC: share}, time.monotonic() - begun
            place = processes.from_first(lambda: place)
            return Outcome(last, last, reached.last, reached.curve, seconds, pictures=place)

        return done_once(work, values, known, job.place, processes, label)


def _split(source: Source, released: Dataset) -> tuple[Dataset, Dataset]:
    """What the model is trained and tested on, in the form of the released images."""
    data, test = source.data, source.test
    if data.task != "segmentation":
        raise UserError(
            f"--authorised {source.spec} is {data.task}: give a set with masks, a folder of images/ and masks/"
        )
    if test is None:
        rest, held = split_holdout(data, _HOLDOUT, 0, source.grouped())
        data, test = Subset(data, rest), Subset(data, held)
    height, width = released.size
    if height != width:
        raise UserError(f"--authorised: the released images are {width}x{height}; give --size, their side in pixels")
    form = (released.channels, height, width)
    return Formed(data, form, ""), Formed(test, form, "")


@torch.no_grad()
def _compare(
    model: nn.Module, clean: Dataset, released: Dataset, runtime: ProcessRuntime
) -> tuple[float, dict[str, np.ndarray]]:
    """The share of pixels decided differently, and what a few changed samples look like; every rank does all."""
    model.eval()
    differing = total = 0
    shown: dict[str, list[Tensor]] = {name: [] for name in ("original", "protected", "on_original", "on_protected")}
    for indices in batches(range(len(released)), _BATCH):
        pair = [data.read(indices).images for data in (clean, released)]
        decided = []
        for images in pair:
            with runtime.autocast():
                decided.append((model(to_unit(images.to(runtime.device))) > 0).any(1).cpu())
        differing += int((decided[0] != decided[1]).sum())
        total += decided[0].numel()
        changed = [i for i in range(len(indices)) if not pair[0][i].equal(pair[1][i])]
        for i in changed[: _SHOWN - len(shown["original"])]:
            for name, part in zip(shown, (*pair, *decided), strict=True):
                shown[name].append(part[i])
    pictures = {
        name: np.stack([part.permute(1, 2, 0).numpy() if part.ndim == 3 else part.numpy() for part in parts])
        for name, parts in shown.items()
        if parts
    }
    return differing / total, pictures
