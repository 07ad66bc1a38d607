"""What a calibration says: one line a probe, and at its end what it may promise."""

from collections.abc import Sequence

from medveil.dataset import Task
from medveil.launch.target.config import LAST, TOP
from medveil.launch.target.search import Found, Probe

METRIC: dict[Task, str] = {"segmentation": "dsc", "classification": "balanced_accuracy", "multilabel": "auc"}
"""What a target is given in."""

_NAMES = {"dsc": "DSC", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}


def probe_line(probe: Probe, target: float) -> str:
    """``8 levels: 40.2 dB; none 3.1, blur 41.0 +- 5.2: above 30``."""
    scores = ", ".join(f"{attack} {_score(probe, attack)}" for attack in probe.scores)
    verdict = "within" if probe.reached <= target else "above"
    return f"{_noise(probe)}: {probe.psnr:.1f} dB; {scores}: {verdict} {target:g}"


def verdict(
    found: Found, target: float, task: Task, model: str, attacks: Sequence[str], clean: Sequence[float], tested: int
) -> str:
    """The promise, or that there is none. ``clean``: what the originals taught; ``tested``: images measured on."""
    probe, metric = found.probe, _NAMES[METRIC[task]]
    seeds = "one seed" if len(clean) == 1 else f"mean and deviation of {len(clean)} seeds"
    measured = (
        f"({seeds}; each the highest of a training's last {LAST} scores; on {tested} images that neither the noise "
    )
    measured += "nor the models had seen; the originals teach "
    measured += f"{sum(clean) / len(clean):.1f})"
    tried = ", ".join(attacks)
    if not found.kept:
        return (
            f"cannot below {TOP} levels: the best was {_score(probe, probe.worst)} {metric} under {probe.worst}, with "
            f"{_noise(probe)} at {probe.psnr:.1f} dB, and the target {target:g} {measured}; nothing was released"
        )
    return (
        f"trained on such a release alone, {model} models reached at most {_score(probe, probe.worst)} {metric}, under "
        f"{probe.worst}, of the attacks {tried} {measured}; {_noise(probe)}, {probe.psnr:.1f} dB. Other attacks, other "
        "models and mixtures with clean images were not tried."
    )


def _noise(probe: Probe) -> str:
    recipe = f"{probe.recipe}, " if probe.recipe else ""
    return f"{recipe}{probe.levels} level{'s' if probe.levels > 1 else ''}"


def _score(probe: Probe, attack: str) -> str:
    spread = probe.spread(attack)
    return f"{probe.mean(attack):.1f}" if spread is None else f"{probe.mean(attack):.1f} +- {spread:.1f}"
