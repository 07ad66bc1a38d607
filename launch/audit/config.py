"""What to audit, and how, as a person says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medveil.config import setting, side
from medveil.launch.data.config import AS_THEY_ARE, MEDICAL, Reading
from medveil.launch.exploiters.config import Preset
from medveil.launch.results import Portion
from medveil.launch.running.machine import HERE, Machine

WHAT, WHERE, EXPLOITER, TRAINING = "what", "where", "exploiter", "training"


@dataclass(frozen=True)
class Audit(Machine):
    """One audit. ``options``: fields of ExploiterConfig over those of the preset."""

    release: Path
    original: str | None = setting(
        None,
        "what it was made from: adds the clean row, PSNR and SSIM; needed for images that medveil did not write",
        metavar="DATA",
        group=WHAT,
    )
    test: str | None = setting(
        None, "clean images to test on; by default an own test split, else those held out", metavar="DATA", group=WHAT
    )
    part: Portion = setting(
        "all", "train on all of it, or on its unprotected (clean) or its protected images alone", group=WHAT
    )
    run: Path | None = setting(
        None,
        "the release's private run, which knows what is protected and held out; by default .RELEASE.run",
        metavar="DIR",
        group=WHAT,
    )
    size: int | None = side("side that the images of folders are resized to", WHAT)
    skip_bad: bool = setting(
        False, "files of --original and --test that cannot be used are left out, as protect was told to", group=WHAT
    )
    authorised: str | None = setting(
        None,
        "instead: how a segmentation model, trained on this clean set, sees released and original images",
        metavar="DATA",
        group=WHAT,
    )
    out: Path | None = setting(
        None, "private folder for runs and records; by default RELEASE.audit", metavar="DIR", group=WHERE
    )
    exploiter: tuple[str, ...] = setting(
        (), "models, such as unet,smp:unetplusplus:resnet34; by default the preset's", group=EXPLOITER
    )
    attacks: str = setting(
        "none",
        "attacks on the protection: standard, full, or such as none,blur,jpeg30+adv4",
        group=EXPLOITER,
        metavar="LIST",
    )
    normalise: tuple[Literal["window", "min-max", "percentile", "z-score"], ...] = setting(
        ("window",),
        "how the exploiter looks at medical files: the first window, or by the values of each volume; each in turn",
        group=MEDICAL,
    )
    weights: Path | None = setting(
        None, "pretrained weights, for the attacks that take some", metavar="FILE", group=EXPLOITER
    )
    seeds: tuple[int, ...] = setting(
        (),
        "seeds, such as 0,1,2; by default 0, and of standard and full the worst three attacks with 1 and 2 too",
        low=0,
        group=EXPLOITER,
    )
    preset: Preset | Literal["auto"] = setting(
        "auto", "how long to train; auto: gpu if there is one, else cpu", group=TRAINING
    )
    workers: int | None = setting(
        None, "trainings side by side on a CPU; by default one for each core", low=1, group=HERE
    )
    options: Mapping[str, Any] = field(default_factory=dict)
    reading: Reading = AS_THEY_ARE

    @property
    def folder(self) -> Path:
        """Where runs and records are kept."""
        release = self.release.resolve()
        return self.out or release.with_name(f"{release.name}.audit")
