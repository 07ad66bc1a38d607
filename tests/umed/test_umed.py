"""UMed: the maps, Algorithm 1's phases, and a fit that resumes and reproduces."""

import io

import pytest
import torch

from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.kernels import contour_band, texture_map
from medveil.quantise import quantise
from medveil.runtime import SingleProcess
from medveil.umed import UMed, UMedConfig, maps

TINY = {"epochs": 3, "generator_epochs": 1, "width": 2, "depth": 2, "batch_size": 4, "learning_rate": 1e-2}


def disks(count=10, size=24, channels=1):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = torch.arange(count).view(-1, 1, 1, 1) * 0.6 + 3
    masks = ((rows - 11) ** 2 + (columns - 12) ** 2 < radius**2).to(torch.uint8)
    grain = torch.randint(0, 30, (count, channels, size, size), generator=torch.Generator().manual_seed(0))
    images = (80 + 60 * masks + grain).to(torch.uint8)
    return ArrayDataset(images, masks, [f"disk/{i}" for i in range(count)], "segmentation", 1)


class Halting(SingleProcess):
    """Keeps the state of step ``at`` and stops there; started with a state, goes on from it."""

    def __init__(self, at=None, state=None):
        super().__init__("cpu")
        self.at, self.state = at, state

    def restore(self):
        return self.state

    def step(self, done, total, state, **metrics):
        if done == self.at:
            # Through bytes, as a checkpoint goes, so that later steps cannot change what was kept.
            buffer = io.BytesIO()
            torch.save(state(), buffer)
            buffer.seek(0)
            self.state = torch.load(buffer, weights_only=True)
            raise InterruptedError


@pytest.mark.parametrize("clip", ["hard", "tanh", "straight-through"])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_stays_within_its_bound_and_support(clip, channels):
    data = disks(channels=channels)
    umed = UMed(**TINY, clip=clip).fit(data, SingleProcess("cpu"))
    images, masks, ids = data.read(range(len(data)))
    saved = quantise(umed.perturb(images, masks, ids), images, umed.budget().levels)
    change = (saved.int() - images.int()).abs()
    assert change.max() <= 4
    assert change.sum() > 0
    assert not (change * ~umed.support(masks)).any()


def test_both_noises_obey_their_own_bound():
    data = disks()
    umed = UMed(**TINY, lbp="uniform").fit(data, SingleProcess("cpu"))
    images, masks, ids = data.read(range(len(data)))
    noise = umed.perturb(images, masks, ids) - images / 255
    band = contour_band(masks, 1)
    bound = 4 / 255 * torch.where(band, 1.0, texture_map(images / 255, "uniform") * masks)
    assert bool((noise.abs() <= bound + 1e-6).all())


def test_an_interrupted_fit_ends_as_an_uninterrupted_one():
    data = disks()
    images, masks, ids = data.read(range(len(data)))
    whole = UMed(**TINY, augment=True).fit(data, SingleProcess("cpu")).perturb(images, masks, ids)
    halting = Halting(at=5)
    with pytest.raises(InterruptedError):
        UMed(**TINY, augment=True).fit(data, halting)
    resumed = UMed(**TINY, augment=True).fit(data, Halting(state=halting.state)).perturb(images, masks, ids)
    assert torch.equal(whole, resumed)


def test_noise_of_an_image_does_not_depend_on_its_batch():
    data = disks()
    umed = UMed(**TINY).fit(data, SingleProcess("cpu"))
    images, masks, ids = data.read(range(len(data)))
    alone = umed.perturb(images[3:4], masks[3:4], ids[3:4])
    torch.testing.assert_close(umed.perturb(images, masks, ids)[3:4], alone, atol=1e-6, rtol=0)


def test_each_phase_trains_its_own_networks():
    data = disks()
    before = {}

    class Watching(SingleProcess):
        def step(self, done, total, state, **metrics):
            weights = state()["protector"]
            for name in ("generators", "surrogate"):
                now = torch.cat([w.flatten().clone() for k, w in weights[name].items() if k.endswith("weight")])
                if name in before:
                    changes.setdefault((done - 1) // 3, set()).update({name} if not before[name].equal(now) else ())
                before[name] = now

    changes: dict[int, set[str]] = {}
    UMed(**{**TINY, "epochs": 4, "generator_epochs": 3}).fit(data, Watching("cpu"))
    assert changes == {0: {"generators"}, 1: {"generators"}, 2: {"generators"}, 3: {"surrogate"}}


def test_algorithm_1_has_four_generator_epochs_and_one_of_the_surrogate():
    phases = [UMedConfig().generating(epoch) for epoch in range(10)]
    assert phases == [True] * 4 + [False] + [True] * 4 + [False]
    assert not UMedConfig(first="surrogate").generating(0)


@pytest.mark.parametrize("lbp", ["default", "ror", "uniform"])
def test_kept_maps_equal_computed_ones(lbp):
    data, config = disks(), UMedConfig(lbp=lbp)
    images, masks, _ = data.read(range(4))
    cache = maps.MapCache(config, len(data), data.size)
    first, second = (cache.get([0, 1, 2, 3], images / 255, masks) for _ in range(2))
    assert torch.equal(first.contour, second.contour)
    assert torch.equal(first.texture, second.texture)


def test_ablations_leave_their_region_alone():
    masks = disks().read([5]).targets
    band, roi = contour_band(masks, 1), masks.bool()
    assert torch.equal(maps.support(UMedConfig(texture="none"), masks), band)
    assert torch.equal(maps.support(UMedConfig(contour="none"), masks), roi)
    assert not (maps.support(UMedConfig(band_side="inner"), masks) & ~roi).any()
    assert torch.equal(maps.support(UMedConfig(band_side="outer", texture="none"), masks), band & ~roi)


@pytest.mark.parametrize("options", [{"eps": 0.001}, {"epochs": 0}, {"contour": "none", "texture": "none"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="umed"):
        UMed(**options)
