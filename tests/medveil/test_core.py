"""Quantisation, losses, configuration and frozen surrogates."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import nn

from medveil.baselines.pattern import Pattern, RandomSigns
from medveil.config import Levels, Settings, budget, build, setting
from medveil.dataset import ArrayDataset, Task
from medveil.errors import UserError
from medveil.losses import classification_loss, global_mean, segmentation_loss
from medveil.quantise import quantise, to_unit, whole_levels
from medveil.runtime import SingleProcess
from medveil.salm import SALM
from medveil.surrogate import frozen, input_gradient, seeded
from medveil.umed import UMed
from medveil.veil import Veil


@pytest.mark.parametrize(("radius", "levels"), [(4 / 255, 4), (8 / 255, 8), (0.01, 2), (1.6 / 255, 1), (1.0, 255)])
def test_saved_bytes_never_exceed_the_bound(radius, levels):
    original = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    noise = radius * (2 * torch.rand(4, 1, 16, 16) - 1)
    saved = quantise((to_unit(original) + noise).clamp(0, 1), original, whole_levels(radius))
    change = (saved.int() - original.int()).abs().max().item()
    assert whole_levels(radius) == levels
    assert 0 < change <= levels


def test_no_noise_saves_the_same_bytes():
    original = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(quantise(to_unit(original), original, 4), original)


def test_shares_of_a_batch_average_to_its_gradient():
    weight = torch.randn(3, 4, requires_grad=True)
    x, y = torch.randn(10, 4), torch.randint(3, (10,))

    def gradient(rows, world):
        loss = global_mean(classification_loss(x[rows] @ weight.T, y[rows], "classification"), 10, world)
        return torch.autograd.grad(loss, weight)[0]

    parts = [gradient(slice(0, 7), 2), gradient(slice(7, 10), 2)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, gradient(slice(None), 1))


def test_binary_and_softmax_cross_entropy_agree_on_equal_logits():
    logits, mask = torch.randn(3, 1, 8, 8), torch.randint(2, (3, 1, 8, 8))
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(segmentation_loss(logits, mask), segmentation_loss(two, mask, "softmax"))


@dataclass(frozen=True)
class _Config(Settings):
    eps: Levels = budget(4 / 255, "bound")
    mode: Literal["paper", "strict"] = setting("paper", "form")
    steps: int = setting(5, "length", low=1)
    share: float | None = setting(None, "part", unit="percent", above=0, high=100)


def test_options_are_read_as_their_type():
    assert build(_Config, {"eps": "1.6/255", "steps": "7", "mode": "strict"}, "x") == _Config(1.6 / 255, "strict", 7)
    assert _Config(share=40).share == 40
    with pytest.raises(ValueError, match="steps must be at least 1"):
        _Config(steps=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"esp": 1}, ["salm", "'esp'", "eps, mode, steps, share"]),
        ({"steps": 0}, ["salm", "steps must be at least 1, not 0"]),
        ({"share": 0}, ["share must be above 0 and at most 100 percent, not 0"]),
        ({"share": "inf"}, ["share must be above 0 and at most 100 percent, not inf"]),
        ({"eps": "0.5/255"}, ["eps must be between 1/255 and 1, not 0.5/255: a smaller bound does not survive"]),
        ({"mode": "loose"}, ["salm", "mode", "'loose'"]),
        ({"eps": "4/zero"}, ["eps", "4/zero"]),
        ({"steps": "many"}, ["steps", "many"]),
    ],
)
def test_wrong_options_are_named(values, words):
    with pytest.raises(UserError) as caught:
        build(_Config, values, "salm")
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_a_frozen_surrogate_gives_input_gradients_alone_and_comes_back_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 36, 2)).train()
    with frozen(net, evaluation=True):
        gradient = input_gradient(lambda x: net(x).sum(1), torch.rand(3, 1, 8, 8))
        assert not net.training
    assert gradient.abs().sum() > 0
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_seeded_weights_do_not_touch_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (seeded(lambda: nn.Linear(4, 4), 5, "weights") for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(torch.rand(1), expected)


def _small(count: int, side: int, task: Task) -> ArrayDataset:
    images = torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8)
    targets = (
        torch.zeros(count, 1, side, side, dtype=torch.uint8) if task == "segmentation" else torch.arange(count) % 2
    )
    targets[..., 2:-2] = 1
    return ArrayDataset(images, targets, [f"id{i}" for i in range(count)], task, 1 if task == "segmentation" else 2)


@pytest.mark.parametrize(
    ("protector", "side", "task", "options"),
    [
        (UMed, 16, "segmentation", {"epochs": 5}),
        (SALM, 8, "classification", {"steps": 4, "pgd_steps": 1, "transforms": 1}),
        (Veil, 16, "segmentation", {"steps": 4, "noise": "generator"}),
        (Veil, 16, "segmentation", {"heat": 3, "noise": "raced"}),
        (Veil, 8, "classification", {"steps": 4}),
    ],
)
def test_a_last_image_of_one_pixel_in_the_network_is_trained_on_with_others(protector, side, task, options):
    """Batch-norm cannot train on a single value: five images by fours leave one over."""
    options = {"width": 2, "batch_size": 4, **options}
    seen = []

    class Watching(SingleProcess):
        def wrap(self, module):
            module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
            return module

    protector(**options).fit(_small(5, side, task), Watching("cpu"))
    assert set(seen) == {5}
    with pytest.raises(UserError, match="single pixel"):
        protector(**options).fit(_small(1, side, task), SingleProcess("cpu"))


@pytest.mark.parametrize(
    ("options", "least"),
    [({"k": 0.3}, "0.3906"), ({"k": 0.3, "by": "pixel"}, "0.3906"), ({"k": 100, "literal_percentile": True}, "99.61")],
)
def test_a_share_that_selects_nothing_is_refused_before_the_fit(options, least):
    """All of the fit would have moved nothing: a random start would have been released as it is, or the originals."""
    with pytest.raises(UserError, match=f"selects none of the 256 .* {least}"):
        SALM(**options).fit(_small(4, 16, "classification"), SingleProcess("cpu"))


@pytest.mark.parametrize("protector", [Veil, RandomSigns, Pattern])
def test_others_refuse_a_share_that_selects_nothing_too(protector):
    with pytest.raises(UserError, match=r"selects none of the 256 elements .* 0\.3906"):
        protector(k=0.3).fit(_small(4, 16, "classification"), SingleProcess("cpu"))
