"""Veil: what it may change, what its surrogates see, and fits that resume and reproduce."""

import pytest
import torch

from medveil import keyed
from medveil.baselines import Pattern
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.feed import Feed
from medveil.networks import UNet
from medveil.quantise import quantise
from medveil.runtime import SingleProcess
from medveil.veil import Veil, VeilConfig, race, spectrum, swapping
from medveil.veil.tiles import TILES
from medveil.veil.young import Young
from tests.disks import disks
from tests.halting import Halting

TINY = {
    "noise": "generator",
    "heat": 1,
    "steps": 7,
    "learning_rate": 0.1,
    "width": 2,
    "depth": 2,
    "batch_size": 4,
    "restart": 2,
    "surrogates": 2,
}
OF_CLASSES = {name: value for name, value in TINY.items() if name != "noise"}
EVERYTHING = {
    "scales": 2,
    "alone": 0.5,
    "masking": 0.5,
    "pipeline": 1.0,
    "pipeline_from": 0.2,
}


class Watching(SingleProcess):
    """Keeps what each wrapped network but the first, the noise's, is shown, in grey levels."""

    def __init__(self):
        super().__init__("cpu")
        self.wrapped = 0
        self.shown = []

    def wrap(self, module):
        self.wrapped += 1
        if self.wrapped > 1:
            module.register_forward_pre_hook(lambda _, given: self.shown.append(given[0].detach() * 255))
        return module


def protected(data: ArrayDataset, runtime: SingleProcess | None = None, **options) -> torch.Tensor:
    images, masks, ids = data.read(range(len(data)))
    return Veil(**{**TINY, **options}).fit(data, runtime or SingleProcess("cpu")).perturb(images, masks, ids)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": "pattern", "tile": 5},
        {"noise": "raced"},
        {"region": "roi+contour", "texture": "lbp", **EVERYTHING},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_stays_within_its_bound_and_support(options, channels):
    data = disks(channels=channels)
    veil = Veil(**{**TINY, **options}, eps="6/255")
    images, masks, ids = data.read(range(len(data)))
    saved = quantise(veil.fit(data, SingleProcess("cpu")).perturb(images, masks, ids), images, veil.budget().levels)
    change = (saved.int() - images.int()).abs()
    assert 1 < change.max() <= 6
    assert not (change * ~veil.support(masks)).any()
    assert options.get("region") == "roi+contour" or torch.equal(veil.support(masks), masks.bool())


@pytest.mark.parametrize("options", [{}, {"noise": "pattern"}, {"noise": "raced", "pipeline": 0.5}, EVERYTHING])
def test_an_interrupted_fit_ends_as_an_uninterrupted_one(options):
    data = disks()
    halting = Halting(at=4)
    with pytest.raises(InterruptedError):
        protected(data, halting, **options)
    resumed = protected(data, Halting(state=halting.state), **options)
    assert torch.equal(protected(data, **options), resumed)


def test_another_seed_is_another_noise():
    data = disks()
    assert torch.equal(protected(data, seed=1), protected(data, seed=1))
    assert not torch.equal(protected(data, seed=1), protected(data, seed=2))


def test_a_kept_fit_protects_as_it_did():
    data = disks()
    images, masks, ids = data.read(range(len(data)))
    veil = Veil(**TINY, **EVERYTHING).fit(data, SingleProcess("cpu"))
    again = Veil(**TINY, **EVERYTHING)
    again.load_state_dict(veil.state_dict())
    assert torch.equal(again.perturb(images, masks, ids), veil.perturb(images, masks, ids))


@pytest.mark.parametrize("swap", [0.0, 1.0])
def test_the_surrogate_sees_noise_on_its_own_image_or_on_anothers(swap):
    """Ten images of ten flat levels, all with one mask: what is shown outside of it tells which image it is."""
    data = disks(count=4)
    images = torch.arange(4).view(-1, 1, 1, 1) * 30 + torch.full((4, 1, 24, 24), 60)
    data = ArrayDataset(images.to(torch.uint8), data.targets, data.ids, "segmentation", 1)
    watching = Watching()
    veil = Veil(**{**TINY, "steps": 1}, swap=swap).fit(data, watching)
    shown = watching.shown[0]
    changed = [(image != image[0, 0, 0]) for image in shown]
    levels = [int((image[0, 0, 0] - 60) / 30) for image in shown]
    assert sorted(levels) == [0, 1, 2, 3]
    outside = [(~veil.support(data.targets[level : level + 1])[0]) for level in levels]
    stays = [not bool((change & out).any()) for change, out in zip(changed, outside, strict=True)]
    # Larger noise on the image of a smaller disc sticks out of it; the reverse cannot be seen.
    assert all(stays) == (swap == 0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_visit_brings_the_images_that_noise_is_shown_on(share):
    data, batch = disks(count=8), [4, 7, 1, 0, 6]
    (visit,) = swapping.visits(Feed(data, torch.device("cpu")), SingleProcess("cpu"), [batch], share, 3, 0)
    keys = keyed.keys_of([data.ids[index] for index in batch])
    swapped = keyed.uniform(3, "veil swap", 0, keys) < share
    partners = [7, 1, 0, 6, 4]
    expected = [other if swap else own for own, other, swap in zip(batch, partners, swapped, strict=True)]
    assert torch.equal(visit.samples.images, data.images[batch]) and visit.samples.keys.tolist() == keys.tolist()
    assert torch.equal(
        swapping.hosts(data.images[batch] / 255, visit.swapped, visit.others), data.images[expected] / 255
    )


def test_a_surrogate_starts_anew_and_the_others_go_on():
    config = VeilConfig(width=2, depth=1, surrogates=2, restart=2, seed=3)
    young = Young(config, lambda: UNet(1, 1, 2, 1), SingleProcess("cpu"))
    fresh = []
    for step in range(9):
        net, _ = young.at(step)
        weight = next(net.parameters())
        fresh.append(not bool((weight == 7).any()))
        torch.nn.init.constant_(weight, 7)
    # Turns of the first are 0, 2, 4, ..., of the second 1, 3, 5, ...; the second is half a life ahead.
    assert fresh == [True, True, False, True, True, False, False, True, True]


def test_no_two_lives_begin_alike():
    config = VeilConfig(width=2, depth=1, surrogates=2, restart=1)
    young = Young(config, lambda: UNet(1, 1, 2, 1), SingleProcess("cpu"))
    begins = [next(young.at(step)[0].parameters()).clone() for step in range(4)]
    assert len({tuple(begin.flatten().tolist()) for begin in begins}) == 4


def test_the_race_is_won_by_what_tells_the_mask(monkeypatch):
    """Two tiles, of which one says nothing."""
    monkeypatch.setattr(race, "TILES", {"silent": torch.zeros(8, 8), "told": TILES["checkerboard"]})
    data = disks(24)
    veil = Veil(noise="raced", width=4, depth=2, heat=30, batch_size=8, eps="40/255", surrogate_learning_rate=1e-2)
    veil.fit(data, SingleProcess("cpu"))
    assert torch.equal(veil.noise.tile[0], TILES["checkerboard"])


@pytest.mark.parametrize(
    ("options", "side", "control"),
    [
        ({}, 64, {"cell": 4}),
        ({}, 48, {"cell": 1}),
        ({"cell": 2}, 64, {"cell": 2}),
        ({"cell": 2, "scales": 2}, 64, {"cell": 2, "scales": 2}),
        ({"colour_cell": 16}, 64, {"cell": 4, "colour_cell": 16}),
        ({"noise": "rows", "cell": 6, "colour_cell": 16}, 64, {"pattern": "rows", "cell": 6, "colour_cell": 16}),
    ],
)
def test_what_is_fixed_needs_no_fit_and_has_the_bytes_of_the_control(options, side, control):
    data = disks(4, size=side, channels=3)
    images, masks, ids = data.read(range(4))
    veil = Veil(**options).fit(data, Halting(at=1))
    known = Pattern(**{"pattern": "checkerboard", "region": "roi", **control}).fit(data, SingleProcess("cpu"))
    assert torch.equal(veil.perturb(images, masks, ids), known.perturb(images, masks, ids))


@pytest.mark.parametrize("noise", ["checkerboard", "generator", "pattern"])
def test_a_cell_larger_than_the_image_takes_no_memory_of_its_own(noise):
    veil = Veil(noise=noise, cell=10**9, width=2, depth=1, steps=1, batch_size=2).fit(disks(4), SingleProcess("cpu"))
    images, masks, ids = disks(4).read(range(4))
    for change, mask in zip(veil.perturb(images, masks, ids) - images / 255, masks.bool(), strict=True):
        assert change[mask].abs().min() > 0 and len(change[mask].sign().unique()) == 1


def test_tiles_neither_darken_nor_brighten():
    for tile in TILES.values():
        assert tile.sum() == 0 and tile.abs().eq(1).all()


def stripes(count: int = 48, channels: int = 1) -> ArrayDataset:
    """Three classes: stripes of three directions in strong grain."""
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    marks = torch.stack([rows, columns, rows + columns]) // 2 % 2
    classes = torch.arange(count) % 3
    grain = torch.randint(0, 120, (count, channels, 16, 16), generator=torch.Generator().manual_seed(0))
    images = (60 + grain + 30 * marks[classes][:, None]).to(torch.uint8)
    return ArrayDataset(images, classes, [f"stripes/{i}" for i in range(count)], "classification", 3)


@pytest.mark.parametrize(("channels", "cell"), [(1, 1), (3, 1), (1, 2)])
def test_noise_of_classes_is_as_sparse_and_as_small_as_told(channels, cell):
    data = stripes(channels=channels)
    veil = Veil(**OF_CLASSES, k=5, eps="6/255", cell=cell).fit(data, SingleProcess("cpu"))
    images, classes, ids = data.read(range(len(data)))
    saved = quantise(veil.perturb(images, classes, ids), images, veil.budget().levels)
    change = (saved.int() - images.int()).abs()
    assert 1 < change.max() <= 6
    assert 0 < (change > 0).flatten(1).sum(1).max() <= int(0.05 * 256 * channels)
    again = Veil(**OF_CLASSES, k=5, eps="6/255", cell=cell)
    again.load_state_dict(veil.state_dict())
    assert torch.equal(again.perturb(images, classes, ids), veil.perturb(images, classes, ids))


def test_noise_of_classes_is_made_of_cells():
    data = stripes(count=6)
    veil = Veil(**OF_CLASSES, k=100, eps="6/255", cell=4).fit(data, SingleProcess("cpu"))
    targets = torch.arange(3)
    noise = veil.perturb(torch.full((3, 1, 16, 16), 128, dtype=torch.uint8), targets, ["a", "b", "c"]) - 128 / 255
    cells = noise[..., ::4, ::4]
    assert cells.abs().min() > 0
    assert torch.equal(noise, cells.repeat_interleave(4, -2).repeat_interleave(4, -1))


def test_an_interrupted_fit_of_classes_ends_as_an_uninterrupted_one():
    data = stripes()
    images, classes, ids = data.read(range(len(data)))
    options = {**OF_CLASSES, "restart": 5}
    halting = Halting(at=3)
    with pytest.raises(InterruptedError):
        Veil(**options).fit(data, halting)
    resumed = Veil(**options).fit(data, Halting(state=halting.state))
    whole = Veil(**options).fit(data, SingleProcess("cpu"))
    assert torch.equal(resumed.perturb(images, classes, ids), whole.perturb(images, classes, ids))


def test_masking_removes_its_band_and_nothing_else():
    rows = torch.arange(32.0)
    slow, fast = (torch.cos(2 * torch.pi * f * rows).expand(32, 32)[None, None] for f in (0.125, 0.375))
    without = spectrum.masked(slow + fast, torch.tensor([0.3]), torch.tensor([0.1]))
    torch.testing.assert_close(without, slow, atol=1e-5, rtol=0)


def test_the_pipeline_sets_in_late_and_grows():
    config = VeilConfig(steps=100, pipeline_from=0.5)
    assert [config.strength(step) for step in (0, 50, 75, 100)] == [0, 0, 0.5, 1]


@pytest.mark.parametrize("options", [{"eps": 0.001}, {"swap": 2}, {"pipeline_from": 1.0}, {"scales": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="veil"):
        Veil(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": "checkerboard", "pipeline": 1}, "pipeline says nothing of noise checkerboard"),
        ({"noise": "checkerboard", "swap": 1}, "swap"),
        ({"noise": "raced", "masking": 0.5}, "masking says nothing of noise raced"),
        ({"noise": "generator", "tile": 5}, "tile"),
        ({"k": 20}, "k says nothing of noise generator"),
        ({"band": 3}, "band"),
        ({"lbp": "uniform"}, "lbp is of texture lbp"),
        ({"alone": 0.5}, "scales of 2 or more"),
        ({"colour_cell": 16}, "colour_cell says nothing of noise generator"),
    ],
)
def test_settings_that_would_be_dropped_in_silence_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        Veil(**{**TINY, **options}).fit(disks(), SingleProcess("cpu"))


@pytest.mark.parametrize("options", [{"noise": "raced"}, {"scales": 2}, {"texture": "lbp"}, {"alone": 0.5}])
def test_settings_of_masks_are_refused_for_classes(options):
    with pytest.raises(UserError, match="says nothing of images with classes"):
        Veil(**{**OF_CLASSES, **options}).fit(stripes(), SingleProcess("cpu"))
