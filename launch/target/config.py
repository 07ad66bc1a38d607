"""What a calibration is to reach, as a person says it."""

from dataclasses import dataclass, replace
from typing import Literal

from medveil.config import Settings, setting
from medveil.errors import UserError
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.methods import settings_of

CALIBRATION = "calibration"

TOP = 12
"""The strongest bound that is tried, in grey levels."""

STRENGTHS = {"low": 4, "medium": 8, "high": 12}
"""Bounds in grey levels."""

SEEDS = {"quick": 1, "normal": 3, "thorough": 5}
"""Trainings of each attack, by effort."""

LAST = 3
"""A score is the highest of so many last points of a learning curve: from one to the next it moves by ten points and
more, and a thief may stop at any of them. So a promise does not rest on one lucky epoch.
"""

VALIDATION = 0.2
"""The share of the images that probes leave out, to measure on."""


@dataclass(frozen=True)
class Target(Settings):
    """``target`` in percent of DSC, of balanced accuracy, or, of a multi-label set, of AUC."""

    target: float | None = setting(
        None,
        "look for the faintest noise against which no one of --attacks teaches a model more than this: DSC, or "
        "balanced accuracy",
        unit="percent",
        above=0,
        below=100,
        group=CALIBRATION,
    )
    attacks: str = setting(
        "none,blur,jpeg30,resize-half-pillow",
        "what --target is to withstand, as in medveil audit",
        metavar="LIST",
        group=CALIBRATION,
    )
    strength: Literal["low", "medium", "high"] | None = setting(
        None,
        "a bound of 4, 8 or 12 grey levels in place of --eps; only an audit tells what it protects",
        group=CALIBRATION,
    )
    effort: Literal["quick", "normal", "thorough"] = setting(
        "normal", "1, 3 or 5 trainings of each attack at each bound", group=CALIBRATION
    )


def bounded(job: ProtectJob, given: Target) -> ProtectJob:
    """``job`` with the bound of ``given.strength``. Raises UserError where something else decides about it."""
    flag = "--strength" if given.target is None else "--target"
    if given.strength is None and given.target is None:
        return job
    if "eps" not in settings_of(job.method).__dataclass_fields__:
        raise UserError(f"{flag} sets the bound of a pixel's change, and {job.method} has none: choose another method")
    if "eps" in job.options or (given.strength is not None and given.target is not None):
        raise UserError("--eps, --strength and --target each set the bound of a pixel's change: give one of them")
    if given.strength is None:
        return job
    return replace(job, options={**job.options, "eps": STRENGTHS[given.strength] / 255})
