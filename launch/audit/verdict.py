"""Whether the clean model learned anything: a drop from nothing says nothing of the protection."""

from collections.abc import Sequence
from statistics import mean

from medveil.dataset import Dataset
from medveil.launch.audit.table import groups_of
from medveil.launch.results import CellResult
from medveil.runtime import batches

_MARGIN = 0.05
"""A score must be this much above that of a guess, before it counts as learned."""

_CHUNK = 256


def verdicts(cells: Sequence[CellResult], test: Dataset) -> list[str]:
    """A line for each exploiter and attack whose clean model is hardly better on ``test`` than a guess."""
    metric, guess, what = _guess(test)
    lines = []
    for (exploiter, attack), same in groups_of(cells).items():
        clean = [cell.clean.last[metric] for cell in same if cell.clean and metric in cell.clean.last]
        if clean and mean(clean) < guess + _MARGIN:
            name = exploiter if attack == "none" else f"{exploiter}, attack {attack}"
            lines.append(
                f"verdict: {name} learned nothing from the clean images ({metric} {100 * mean(clean):.1f}, and {what} "
                f"has {100 * guess:.1f}): its drop says nothing of the protection; train longer, or on more images"
            )
    return lines


def _guess(test: Dataset) -> tuple[str, float, str]:
    """A metric, what it is for a model that has learned nothing, and who that is."""
    if test.task == "classification":
        return "balanced_accuracy", 1 / test.num_classes, "guessing"
    if test.task == "multilabel":
        return "auc", 0.5, "guessing"
    scores: list[float] = []
    for indices in batches(range(len(test)), _CHUNK):
        shares = test.read(indices).targets.flatten(1).float().mean(1)
        # Dice of all foreground: twice the mask over the mask and the whole image.
        scores += (2 * shares / (1 + shares)).tolist()
    return "dsc", mean(scores), "calling all of each image foreground"
