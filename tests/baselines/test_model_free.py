"""LSP and AR: norms, filters and patterns, and what a guess of the seed would need."""

import math

import pytest
import torch

from medveil import keyed
from medveil.baselines import AR, LSP
from medveil.baselines.ar import border_size, inside_of_border
from medveil.errors import UserError
from medveil.metrics import psnr
from medveil.quantise import quantise
from tests.baselines.rivals import pictures


@pytest.mark.parametrize("method", [LSP, AR])
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_l2_norm_is_that_of_eps_everywhere(method, task):
    """Away from 0 and 255 nothing is cut: the energy is the bound's, single pixels exceed it, PSNR is the norm's."""
    data = pictures(task)
    images, targets, ids = data.read(range(len(data)))
    protector = method(eps="4/255").fit(data)
    noise = protector.perturb(images, targets, ids) - images / 255
    expected = 4 / 255 * math.sqrt(images[0].numel())
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((len(images),), expected), rtol=1e-4, atol=0)
    assert noise.abs().max() > 4.5 / 255
    assert psnr(images[0], quantise(images / 255 + noise, images, None)[0]) == pytest.approx(36.1, abs=0.2)
    clipped = method(eps="4/255", clip=True).fit(data).perturb(images, targets, ids) - images / 255
    assert clipped.abs().max() <= 4 / 255 + 1e-6


@pytest.mark.parametrize("method", [LSP, AR])
def test_another_seed_gives_other_noise(method):
    images, targets, ids = pictures("classification").read(range(4))
    noises = [method(seed=seed).fit(pictures("classification")).perturb(images, targets, ids) for seed in (1, 1, 2)]
    assert torch.equal(noises[0], noises[1])
    assert not torch.allclose(noises[0], noises[2], atol=4 / 255)


@pytest.mark.parametrize("method", [LSP, AR])
def test_inside_and_outside_of_a_mask_are_two_classes(method):
    """Noise per class depends on a pixel's class alone: the samples differ only where their masks do."""
    data = pictures()
    images, masks, ids = data.read([0, 1])
    flat = torch.full_like(images, 128)
    noise = method(wise="class").fit(data).perturb(flat, masks, ids) - flat / 255
    scale = (noise[0] / noise[1])[(masks[0] == masks[1]) & (noise[1].abs() > 1e-4)]
    assert scale.std() < 1e-2
    inside, outside = (
        method(wise="class").fit(data).pattern([n], keyed.keys_of(["a"]), (1, 16, 16)) for n in ("inside", "outside")
    )
    assert not torch.allclose(inside, outside, atol=0.1)


def test_lsp_is_flat_in_patches_and_linearly_separable():
    data = pictures("classification", count=60)
    images, targets, ids = data.read(range(60))
    flat = torch.full_like(images, 128)
    noise = LSP(patch=4).fit(data).perturb(flat, targets, ids) - flat / 255
    cells = noise.view(60, 4, 4, 4, 4)
    assert torch.allclose(cells, cells[:, :, :1, :, :1].expand_as(cells), atol=1e-6)
    points = cells[:, :, 0, :, 0].reshape(60, 16)
    points = torch.cat([points / points.std(), torch.ones(60, 1)], 1)
    truth = torch.nn.functional.one_hot(targets, 3).float()
    weights = torch.linalg.lstsq(points[:40], truth[:40]).solution
    assert ((points[40:] @ weights).argmax(1) == targets[40:]).float().mean() > 0.9


@pytest.mark.parametrize(("side", "patch"), [(28, 7), (32, 8), (96, 14), (224, 32)])
def test_the_patch_follows_the_size(side, patch):
    lsp = LSP().fit(pictures("classification"))
    noise = lsp.pattern(["0"], keyed.keys_of(["a"]), (1, side, side))[0, 0]
    assert (noise[:, 1:] != noise[:, :-1]).any(0).nonzero().flatten().tolist() == list(
        range(patch - 1, side - 1, patch)
    )


def test_ars_matrix_is_its_loop_over_the_pixels():
    height, width = 5, 7
    taps = torch.tensor([0.3, -0.2, 0.4, 0.1, 0.5, -0.3, 0.1, 0.1])
    border = torch.randn(border_size(height, width), generator=torch.Generator().manual_seed(3))
    field = torch.zeros(height + 2, width + 2)
    edge = torch.ones_like(field, dtype=torch.bool)
    edge[2:, 2:] = False
    field[edge] = border
    for i in range(2, height + 2):
        for j in range(2, width + 2):
            past = field[i - 2 : i + 1, j - 2 : j + 1].flatten()[:-1]
            field[i, j] = (past * taps).sum()
    made = (inside_of_border(taps, height, width) @ border).view(height, width)
    torch.testing.assert_close(made, field[2:, 2:])


def test_ars_filters_sum_to_one_differ_by_class_and_channel_and_stay_in_bounds():
    ar = AR().fit(pictures("classification"))
    filters = [ar.filter_of(name, (2, 64, 64))[channel] for name in ("0", "1") for channel in (0, 1)]
    assert all(taps.sum() == pytest.approx(1, abs=1e-4) for taps in filters)
    assert len({tuple(taps.tolist()) for taps in filters}) == 4
    for taps in filters:
        size = inside_of_border(taps, 64, 64).square().sum(1).sqrt()
        assert size.min() > 1 / 30 and size.max() < 30


def test_ars_noise_obeys_its_filter():
    """Inside the image every pixel is the filter's sum of its past: the signature that a model learns."""
    data = pictures("classification")
    images, targets, ids = data.read([0])
    flat = torch.full_like(images, 128)
    ar = AR().fit(data)
    noise = (ar.perturb(flat, targets, ids) - flat / 255)[0, 0]
    taps = torch.cat([ar.filter_of(str(int(targets[0])), (1, 16, 16))[0], torch.tensor([-1.0])]).view(1, 1, 3, 3)
    left = torch.nn.functional.conv2d(noise[None, None], taps)
    assert left.abs().max() < 1e-3 * noise.abs().max()


def answer(taps, noise):
    """The sum of the positive part of what a filter [C, 8] that cancels its own noise makes of ``noise`` [C, H, W]."""
    kernel = torch.cat([taps, -torch.ones(len(taps), 1)], 1).view(1, -1, 3, 3)
    return float(torch.nn.functional.conv2d(noise[None], kernel).relu().sum())


def own_noise(taps, seed):
    """Noise of norm 1 on 32x32 pixels from another border than that of the test of filters."""
    border = torch.randn(len(taps), border_size(32, 32), generator=torch.Generator().manual_seed(seed))
    lines = [(inside_of_border(one, 32, 32) @ line).view(32, 32) for one, line in zip(taps, border, strict=True)]
    return torch.stack(lines) / torch.stack(lines).norm()


@pytest.mark.parametrize("channels", [1, 3])
def test_ars_filters_answer_the_noise_of_later_classes_and_not_their_own(channels):
    """So that a network tells the classes apart; the authors' measure and their threshold of 10."""
    ar = AR().fit(pictures("classification"))
    filters = [ar.filter_of(name, (channels, 32, 32)) for name in "012"]
    noises = [own_noise(taps, i) for i, taps in enumerate(filters)]
    for i, noise in enumerate(noises):
        assert answer(filters[i], noise) < 1e-2
        assert all(answer(earlier, noise) > 8 for earlier in filters[:i])


def test_ar_takes_the_filter_that_comes_closest_where_none_answers_enough():
    data = pictures("classification")
    weak, strong, most = (AR(response=wanted).fit(data).filter_of("1", (1, 16, 16)) for wanted in (0, 12, 1e6))
    earlier = AR().fit(data).filter_of("0", (1, 16, 16))
    assert (
        answer(earlier, own_noise(weak, 0))
        < answer(earlier, own_noise(strong, 0))
        < answer(earlier, own_noise(most, 0))
    )


def test_ar_says_when_no_filter_stays_in_bounds():
    with pytest.raises(UserError, match="--growth"):
        AR(growth=1.001).fit(pictures("classification")).filter_of("0", (1, 16, 16))
