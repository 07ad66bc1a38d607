"""What protection is for: a model that learns from the files is worse on clean images. Nulls do not protect."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medveil.baselines import AR, LSP, SEP, TAP, ErrorMinimising, Pattern, Unprotected
from medveil.dataset import ArrayDataset
from medveil.losses import segmentation_loss
from medveil.metrics import overlap_counts, segmentation_metrics
from medveil.networks import UNet
from medveil.quantise import quantise, to_unit
from medveil.runtime import SingleProcess
from tests.baselines.rivals import keeps_bound

SIDE = 24
SMALL = {"unet_width": 4, "unet_batch_size": 16, "unet_learning_rate": 1e-2}
EM = {**SMALL, "start": "zero", "rounds": 6, "stop_error": 0, "model_steps": 8, "noise_steps": 4, "relative_step": 0.25}
PLAIN = {"objective": "label", "variance": "plain"}
"""Of SEP, for speed."""
RIVALS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "em": (ErrorMinimising, 24, EM),
    "tap": (TAP, 24, {**SMALL, "epochs": 20, "pgd_steps": 16, "restarts": 1, "relative_step": 0.25}),
    "sep": (SEP, 16, {**SMALL, **PLAIN, "epochs": 10, "checkpoints": 3, "pgd_steps": 6, "step_size": "4/255"}),
    "lsp": (LSP, 16, {}),
    "ar": (AR, 24, {}),
}
"""Method, bound in grey levels, settings."""


def discs(seed: int, count: int = 64) -> ArrayDataset:
    """Grainy images, each with a slightly brighter disc: easy to learn, and within reach of the bound."""
    chance = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    y, x = torch.randint(6, 18, (2, count, 1, 1, 1), generator=chance)
    radius = torch.randint(3, 7, (count, 1, 1, 1), generator=chance)
    masks = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    images = 110 + 24 * masks + 8 * torch.randn(count, 1, SIDE, SIDE, generator=chance)
    ids = [f"{seed}/{i}" for i in range(count)]
    return ArrayDataset(images.round().to(torch.uint8), masks.to(torch.uint8), ids, "segmentation", 1)


def released(protector: Any, data: ArrayDataset, folder: Path) -> ArrayDataset:
    """``data`` protected, written as PNG files and read back."""
    images, masks, ids = data.read(range(len(data)))
    saved = quantise(protector.perturb(images, masks, ids), images, protector.budget().levels)
    for i, image in enumerate(saved):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    read = [torch.from_numpy(np.array(Image.open(folder / f"{i}.png")))[None] for i in range(len(data))]
    return ArrayDataset(torch.stack(read), masks, ids, "segmentation", 1)


def clean_score(data: ArrayDataset) -> float:
    """The pooled DSC on other, clean images of a small U-Net that learned from ``data``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(1, 1, 4, 2)
        optimiser = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(40):
            for chosen in torch.randperm(len(data)).split(16):
                loss = segmentation_loss(net(to_unit(data.images[chosen])), data.targets[chosen]).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    test = discs(seed=2)
    with torch.no_grad():
        counts = overlap_counts(net.eval()(to_unit(test.images)) > 0, test.targets)
    return segmentation_metrics(counts)["dsc_pooled"]


@pytest.mark.parametrize("name", RIVALS)
def test_a_rivals_files_keep_their_bound_and_lower_what_a_model_learns(name: str, tmp_path: Path) -> None:
    method, levels, options = RIVALS[name]
    data = discs(seed=1)
    files = released(method(eps=f"{levels}/255", **options).fit(data, SingleProcess("cpu")), data, tmp_path)
    change = (files.images.int() - data.images.int()).flatten(1)
    assert change.any(1).all()
    assert keeps_bound(name, change, levels)
    assert clean_score(files) < 0.85


@pytest.mark.parametrize(
    "protector",
    [
        Unprotected(),
        Pattern(eps="16/255", region="image"),
        Pattern(eps="16/255", region="image", psnr=36),
        Pattern(eps="16/255", mask="another"),
        Pattern(),
    ],
)
def test_nulls_let_a_model_learn(protector: Any, tmp_path: Path) -> None:
    """At a rival's bound, at a release's PSNR, on another image's mask; and random signs at UMed's bound and support,
    which tell the label by their place but too faintly for these discs."""
    assert clean_score(released(protector.fit(discs(seed=1)), discs(seed=1), tmp_path)) > 0.88


def test_a_fixed_pattern_on_the_mask_protects_though_nothing_was_learned(tmp_path: Path) -> None:
    """Why a learned method is to be held against it."""
    control = Pattern(eps="24/255", pattern="checkerboard").fit(discs(seed=1))
    assert clean_score(released(control, discs(seed=1), tmp_path)) < 0.85
