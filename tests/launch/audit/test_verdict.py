"""Whether a clean model that learned nothing is told from one that did."""

import pytest
import torch

from medveil.dataset import ArrayDataset
from medveil.launch.audit.verdict import verdicts
from medveil.launch.results import CellResult, Exploiter, Options, Outcome

IMAGES = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
MASKS = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
MASKS[:, :, :, :4] = 1
SETS = {
    "classes": ArrayDataset(IMAGES, torch.arange(4), ["a", "b", "c", "d"], "classification", 4),
    # Half of each image is foreground: calling everything foreground has a Dice of two thirds.
    "masks": ArrayDataset(IMAGES, MASKS, ["a", "b", "c", "d"], "segmentation", 1),
}


def cell(score: float, seed: int) -> CellResult:
    reached = Outcome({"balanced_accuracy": score, "dsc": score})
    exploiter = Exploiter("unet", Options())
    return CellResult("set", "umed", Options(), exploiter, "none", seed, "done", clean=reached, protected=reached)


@pytest.mark.parametrize(
    ("data", "scores", "nothing"),
    [
        ("classes", [0.20, 0.32], True),
        ("classes", [0.20, 0.50], False),
        ("masks", [0.0, 0.68], True),
        ("masks", [0.75, 0.75], False),
    ],
)
def test_a_clean_model_no_better_than_a_guess_gets_a_verdict(data: str, scores: list[float], nothing: bool) -> None:
    lines = verdicts([cell(score, seed) for seed, score in enumerate(scores)], SETS[data])
    assert len(lines) == nothing
    assert all("unet learned nothing" in line for line in lines)
