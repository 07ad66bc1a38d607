"""What protection is for, on classes: a model that learns from the files is worse on clean images, random signs do not.

SALM stands here too, beside the protectors that it is compared with.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medveil.baselines import AR, LSP, SEP, TAP, ErrorMinimising, RandomSigns, Unprotected
from medveil.dataset import ArrayDataset
from medveil.losses import classification_loss
from medveil.networks import ResNet18
from medveil.quantise import quantise, to_unit
from medveil.runtime import SingleProcess
from medveil.salm import SALM
from tests.baselines.rivals import keeps_bound

SIDE = 16
SMALL = {"width": 8, "batch_size": 32, "flip": False, "padding": 0}
"""The exploiter does not augment either."""

ALTERNATING = {**SMALL, "start": "zero", "transforms": 1}
SPARSE = {**ALTERNATING, "steps": 20, "decay_every": 8, "pgd_steps": 3, "step_size": "10/255"}
ADVERSARIAL = {**SMALL, "epochs": 4, "augment": False}
PLAIN = {"objective": "label", "variance": "plain"}
"""Of SEP, for speed."""
RIVALS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "salm": (SALM, 24, SPARSE),
    "salm-strict": (SALM, 24, {**SPARSE, "mode": "strict"}),
    "em": (ErrorMinimising, 8, {**ALTERNATING, "steps": 16, "decay_every": 8, "pgd_steps": 4, "step_size": "3/255"}),
    "tap": (TAP, 8, {**ADVERSARIAL, "pgd_steps": 6, "restarts": 1, "relative_step": 0.25}),
    "sep": (SEP, 8, {**ADVERSARIAL, **PLAIN, "checkpoints": 2, "pgd_steps": 5, "step_size": "2/255"}),
    "lsp": (LSP, 12, {}),
    "ar": (AR, 16, {}),
}
"""Method, bound in grey levels, settings: far enough that another start of the model's makes no difference."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads sum in another order, and so short a training is another one for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lesions(seed: int, count: int = 192) -> ArrayDataset:
    """Grainy images of a disc, a ring or a cross, a little brighter than the tissue: easy, and near the bound."""
    chance = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    y, x = torch.randint(5, 11, (2, count, 1, 1, 1), generator=chance)
    distance = (rows - y) ** 2 + (columns - x) ** 2
    cross = ((rows == y) | (columns == x)) & (distance < 26)
    forms = torch.stack([distance < 12, (distance >= 7) & (distance < 22), cross])
    classes = torch.arange(count) % len(forms)
    images = 110 + 14 * forms[classes, torch.arange(count)] + 8 * torch.randn(count, 1, SIDE, SIDE, generator=chance)
    ids = [f"{seed}/{i}" for i in range(count)]
    return ArrayDataset(images.round().to(torch.uint8), classes, ids, "classification", len(forms))


def released(protector: Any, data: ArrayDataset, folder: Path) -> ArrayDataset:
    """``data`` protected, written as an npz file and read back."""
    images, classes, ids = data.read(range(len(data)))
    saved = quantise(protector.perturb(images, classes, ids), images, protector.budget().levels)
    np.savez_compressed(folder / "set.npz", train_images=saved.numpy(), train_labels=classes.numpy())
    with np.load(folder / "set.npz", allow_pickle=False) as file:
        arrays = [torch.from_numpy(file[f"train_{name}"]) for name in ("images", "labels")]
    return ArrayDataset(arrays[0], arrays[1], ids, "classification", data.num_classes)


def clean_score(data: ArrayDataset) -> float:
    """The accuracy on other, clean images of a small ResNet-18 that learned from ``data``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ResNet18(1, data.num_classes, 8)
        optimiser = torch.optim.SGD(net.parameters(), 0.05, 0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.05, 6 * len(data) // 16)
        for _ in range(6):
            for chosen in torch.randperm(len(data)).split(16):
                logits = net(to_unit(data.images[chosen]))
                loss = classification_loss(logits, data.targets[chosen], "classification").mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        # So few steps leave the running statistics behind: they are taken anew, of the finished weights.
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None
        with torch.no_grad():
            net(to_unit(data.images))
    test = lesions(seed=2, count=300)
    with torch.no_grad():
        taken = net.eval()(to_unit(test.images)).argmax(1)
    return float((taken == test.targets).float().mean())


@pytest.mark.parametrize("name", RIVALS)
def test_a_rivals_files_keep_their_bound_and_lower_what_a_model_learns(name: str, tmp_path: Path) -> None:
    method, levels, options = RIVALS[name]
    data = lesions(seed=1)
    files = released(method(eps=f"{levels}/255", **options).fit(data, SingleProcess("cpu")), data, tmp_path)
    change = (files.images.int() - data.images.int()).flatten(1)
    assert change.any(1).all()
    assert keeps_bound(name, change, levels)
    if name == "salm-strict":
        assert change.count_nonzero(1).max() <= SIDE**2 // 10
    assert clean_score(files) < 0.85


@pytest.mark.parametrize("protector", [Unprotected(), RandomSigns(eps="8/255"), RandomSigns(k=10, eps="24/255")])
def test_no_protection_and_random_signs_let_a_model_learn(protector: Any, tmp_path: Path) -> None:
    """Of every element at the rivals' bound, and of SALM's share at its own."""
    assert clean_score(released(protector.fit(lesions(seed=1)), lesions(seed=1), tmp_path)) > 0.9
