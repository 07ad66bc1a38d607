"""UMed: the maps, Algorithm 1's phases, and a fit that resumes and reproduces."""

import pytest
import torch

from medveil.errors import UserError
from medveil.kernels import contour_band, texture_map
from medveil.quantise import quantise
from medveil.runtime import SingleProcess
from medveil.umed import UMed, UMedConfig, maps
from tests.disks import disks
from tests.halting import Halting

TINY = {"epochs": 3, "generator_epochs": 1, "width": 2, "depth": 2, "batch_size": 4, "learning_rate": 1e-2}


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


@pytest.mark.parametrize("options", [{}, {"output": "raw"}, {"texture": "lbp", "lbp": "uniform"}])
def test_both_noises_obey_their_own_bound(options):
    data = disks()
    umed = UMed(**TINY, **options).fit(data, SingleProcess("cpu"))
    images, masks, ids = data.read(range(len(data)))
    noise = umed.perturb(images, masks, ids) - images / 255
    band = contour_band(masks, 1)
    texture = texture_map(images / 255, "uniform") if options.get("texture") else maps.contrast_map(images, 6)
    bound = 4 / 255 * torch.where(band, 1.0, texture * masks)
    assert bool((noise.abs() <= bound + 1e-6).all())
    # Outputs as they are begin beyond their bound nearly everywhere; in units of eps they do not.
    at_bound = (noise.abs() > 0.99 * bound)[bound > 0].float().mean()
    assert (at_bound > 0.8) == ("output" in options)


def test_contrast_is_low_where_it_is_flat_and_high_where_it_is_rough():
    """The paper's words; the local binary pattern has it the other way round."""
    flat = torch.full((1, 1, 9, 9), 90, dtype=torch.uint8)
    assert maps.contrast_map(flat, 0).max() == 0 and texture_map(flat)[..., 1:-1, 1:-1].min() == 1
    rough = flat.clone()
    rough[..., ::2] = 97
    found = maps.contrast_map(rough, 6)[0, 0]
    assert found[4, 4] == 6 / 8 and found[4, 0] == 3 / 8  # two columns of three differ; beyond the border it goes on
    assert maps.contrast_map(rough, 7).max() == 0
    assert torch.equal(maps.contrast_map(rough / 255, 6), maps.contrast_map(rough, 6))


def test_a_surrogate_drawn_anew_does_not_know_the_one_before():
    """Its weights at the end of an epoch depend on the generators, not on what it had learned."""
    data = disks()
    states = {}

    class Watching(SingleProcess):
        def step(self, done, total, state, **metrics):
            states[self.name, done] = state()

    options = {**TINY, "epochs": 4, "generator_epochs": 1}
    for name in ("kept", "anew"):
        runtime = Watching("cpu")
        runtime.name = name
        UMed(**options, surrogate=name).fit(data, runtime)
    last = len(states) // 2
    kept, anew = (states[name, last] for name in ("kept", "anew"))
    assert {s["step"].item() for s in kept["surrogate_optimiser"]["state"].values()} == {6}
    assert {s["step"].item() for s in anew["surrogate_optimiser"]["state"].values()} == {3}
    before, after = (states["anew", n]["protector"]["surrogate"]["head.weight"] for n in (6, 9))
    assert torch.equal(before, after)  # generators' epochs leave it alone


def test_a_fit_with_surrogates_drawn_anew_resumes():
    data = disks()
    images, masks, ids = data.read(range(len(data)))
    options = {**TINY, "epochs": 4, "surrogate": "anew"}
    whole = UMed(**options).fit(data, SingleProcess("cpu")).perturb(images, masks, ids)
    for at in (9, 11):  # as its epoch begins, and within it
        halting = Halting(at=at)
        with pytest.raises(InterruptedError):
            UMed(**options).fit(data, halting)
        assert torch.equal(whole, UMed(**options).fit(data, Halting(state=halting.state)).perturb(images, masks, ids))


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


@pytest.mark.parametrize(
    "options", [{}, *({"texture": "lbp", "lbp": lbp} for lbp in ("default", "ror", "uniform")), {"texture": "fixed"}]
)
def test_kept_maps_equal_computed_ones(options):
    data, config = disks(), UMedConfig(**options)
    images, masks, _ = data.read(range(4))
    cache = maps.MapCache(config, len(data), data.size)
    first, second = (cache.get([0, 1, 2, 3], images / 255, masks) for _ in range(2))
    assert torch.equal(first.contour, second.contour)
    assert torch.equal(first.texture, second.texture)


def test_ablations_leave_their_region_alone():
    masks = disks().read([5]).targets
    band, roi = contour_band(masks, 1), masks.bool()
    assert torch.equal(maps.support(UMedConfig(texture="none"), masks), band)
    # Only the contour noise goes (Table 5, E and F): the texture stays y_t = (1 - y_c) y.
    assert torch.equal(maps.support(UMedConfig(contour="none"), masks), roi & ~band)
    assert not (maps.support(UMedConfig(band_side="inner"), masks) & ~roi).any()
    assert torch.equal(maps.support(UMedConfig(band_side="outer", texture="none"), masks), band & ~roi)


@pytest.mark.parametrize("texture", ["contrast", "lbp", "fixed"])
def test_without_contour_noise_the_band_is_left_as_it_was(texture):
    data = disks()
    umed = UMed(**TINY, contour="none", texture=texture).fit(data, SingleProcess("cpu"))
    images, masks, ids = data.read(range(len(data)))
    change = quantise(umed.perturb(images, masks, ids), images, 4).int() - images.int()
    assert change.any()
    assert not (change * contour_band(masks, 1)).any()


@pytest.mark.parametrize("options", [{"eps": 0.001}, {"epochs": 0}, {"contour": "none", "texture": "none"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="umed"):
        UMed(**options)


@pytest.mark.parametrize("options", [{"lbp": "uniform"}, {"texture": "lbp", "noise_level": 4}])
def test_a_setting_of_a_texture_that_is_not_used_is_refused(options):
    with pytest.raises(UserError, match="is of texture"):
        UMed(**TINY, **options).fit(disks(), SingleProcess("cpu"))


def test_generators_and_surrogate_are_compiled_wherever_they_are_called(monkeypatch):
    made, called = [], []

    def compiled(module):  # a stand-in: the real one takes minutes
        made.append(type(module).__name__)
        return lambda x: called.append(made[-1]) or module(x)

    monkeypatch.setattr(torch, "compile", compiled)
    data = disks(channels=1)
    images, masks, ids = data.read(range(len(data)))
    options = {**TINY, "epochs": 2}
    found = [
        UMed(**options, compile=whether).fit(data, SingleProcess("cpu")).perturb(images, masks, ids)
        for whether in (False, True)
    ]
    assert made == ["Generators", "UNet"] * 2  # as trained, and as fixed functions
    assert len(called) == 2 * 2 * -(-len(data) // TINY["batch_size"])  # both, in each step of both epochs
    assert torch.equal(*found)
