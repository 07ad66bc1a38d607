"""What holds for every rival: its bound on the saved bytes, noise that belongs to ids, and none of the known faults."""

from functools import cache

import pytest
import torch

from medveil.baselines import AR, LSP, SEP, TAP, ErrorMinimising
from medveil.baselines.classes import wrong_targets
from medveil.baselines.surrogates import Surrogate
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.losses import segmentation_loss
from medveil.metrics import mean_psnr, psnr
from medveil.networks import UNet
from medveil.quantise import quantise
from medveil.runtime import SingleProcess, joined_batches
from tests.baselines.rivals import (
    EM,
    Last,
    pictures,
    saved,
)
from tests.baselines.rivals import (
    SEP as SEP_OPTIONS,
)
from tests.baselines.rivals import (
    TAP as TAP_OPTIONS,
)
from tests.halting import Halting, through_a_file

SETTINGS = {
    "em": (ErrorMinimising, EM),
    "em class": (ErrorMinimising, {**EM, "wise": "class"}),
    "em contour": (ErrorMinimising, {**EM, "region": "contour"}),
    "em roi class": (ErrorMinimising, {**EM, "region": "roi", "wise": "class", "rounding": True}),
    "tap": (TAP, TAP_OPTIONS),
    "tap untargeted": (TAP, {**TAP_OPTIONS, "goal": "untargeted"}),
    "sep": (SEP, SEP_OPTIONS),
    "sep label plain": (SEP, {**SEP_OPTIONS, "objective": "label", "variance": "plain"}),
    "lsp": (LSP, {}),
    "lsp clipped": (LSP, {"clip": True}),
    "ar": (AR, {}),
    "ar class clipped": (AR, {"clip": True, "wise": "class"}),
}
FOR_MASKS = {"em contour", "em roi class"}
ONE_CLASS = {"em class", "sep"}
CASES = [
    (name, task)
    for name in SETTINGS
    for task in ("segmentation", "classification", "multilabel")
    if not (task != "segmentation" and name in FOR_MASKS) and not (task == "multilabel" and name in ONE_CLASS)
]


def fitted(name, data, runtime=None):
    method, options = SETTINGS[name]
    return method(**options).fit(data, runtime or SingleProcess("cpu"))


@cache
def once(name):
    """Fitted to ``pictures()``: for tests that only look at it."""
    return fitted(name, pictures())


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_sample_is_protected_within_its_bound_and_region(name, task):
    """Eleven samples in batches of four, the last partial one too; pixels get darker as well as brighter."""
    data = pictures(task, channels=3 if task == "segmentation" else 1)
    protector = fitted(name, data)
    change, allowed = saved(protector, data)
    levels = protector.budget().levels
    bound = 4 if task == "segmentation" else 8
    assert levels == (None if name in ("lsp", "ar") else bound)
    if levels is not None:
        assert change.abs().max() <= bound
    assert (change != 0).flatten(1).any(1).all()
    assert not (change * ~allowed).any()
    assert (change < 0).flatten(1).any(1).float().mean() > 0.6
    assert (change > 0).flatten(1).any(1).float().mean() > 0.6


@pytest.mark.parametrize("name", SETTINGS)
def test_noise_belongs_to_ids_and_outlives_the_fit(name):
    """Other positions, another batch, another object with the saved state: the same bytes."""
    data, protector = pictures(), once(name)
    images, masks, ids = data.read(range(len(data)))
    whole = quantise(protector.perturb(images, masks, ids), images, protector.budget().levels)
    other = SETTINGS[name][0](**SETTINGS[name][1])
    other.load_state_dict(through_a_file(protector.state_dict()))
    some = [7, 2, 10]
    images, masks, ids = data.read(some)
    assert torch.equal(quantise(other.perturb(images, masks, ids), images, other.budget().levels), whole[some])


@pytest.mark.parametrize("name", ["em", "em class", "tap", "sep"])
@pytest.mark.parametrize("at", [2, 8])
def test_an_interrupted_fit_ends_as_an_uninterrupted_one(name, at):
    """Cut while the model trains and between the batches of a pass over the noise."""
    data = pictures()
    whole = saved(once(name), data)[0]
    halting = Halting(at=at)
    with pytest.raises(InterruptedError):
        fitted(name, data, halting)
    assert torch.equal(saved(fitted(name, data, Halting(state=halting.state)), data)[0], whole)
    if name == "tap":  # Its noise is final when it is written: whole levels, a byte each.
        assert halting.state["noise"].dtype == torch.int8


@pytest.mark.parametrize("name", ["em", "em class", "tap", "tap untargeted", "sep", "sep label plain"])
def test_noise_moves_its_surrogates_loss_the_right_way(name):
    data, runtime = pictures(), Last("cpu")
    method, options = SETTINGS[name]
    more = {"pgd_steps": 6} if method is TAP else {}
    trained = {"epochs": 5} if method is not ErrorMinimising else {}
    protector = method(**{**options, **more, **trained, "unet_width": 4}).fit(data, runtime)
    net = UNet(1, 1, 4).eval()
    net.load_state_dict(runtime.state["surrogate"]["net"])
    images, masks, ids = data.read(range(len(data)))
    with torch.no_grad():
        aim = 1 - masks if name in ("tap", "sep", "sep label plain") else masks
        clean = segmentation_loss(net(images / 255), aim)
        protected = segmentation_loss(net(protector.perturb(images, masks, ids)), aim)
    fell = (protected < clean).float().mean()
    assert fell < 0.2 if name == "tap untargeted" else fell > 0.8


@pytest.mark.parametrize("name", SETTINGS)
def test_no_samples_get_no_noise(name):
    images, masks, ids = pictures().read([])
    assert once(name).perturb(images, masks, ids).shape == images.shape


def test_em_forgets_what_it_was_fitted_to_before():
    """Classes make it SALM's, masks UMed's: whether it is fitted again or given another's state."""
    quick = {**ErrorMinimising.Config.presets["demo"], "width": 4, "unet_width": 2, "model_steps": 10, "passes": 13}
    data, runtime = pictures(), SingleProcess("cpu")
    alone = ErrorMinimising(**quick).fit(data, runtime)
    again = ErrorMinimising(**quick).fit(pictures("classification"), runtime)
    loaded = ErrorMinimising(**quick).fit(pictures("classification"), runtime)
    again.fit(data, runtime)
    loaded.load_state_dict(alone.state_dict())
    for other in (again, loaded):
        assert torch.equal(saved(other, data)[0], saved(alone, data)[0])


def test_noise_for_an_unknown_id_is_refused():
    data, protector = pictures(), once("em")
    images, masks, _ = data.read([0])
    with pytest.raises(ValueError, match="fitted"):
        protector.perturb(images, masks, ["some/99"])


def test_noise_per_class_is_one_for_all_its_samples():
    data = pictures("classification")
    protector = fitted("em class", data)
    noise = protector.levels[data.targets]
    assert torch.equal(saved(protector, data)[0], noise.int())
    assert len(protector.levels) == 3


def test_no_shift_lands_on_the_true_label():
    truth = torch.arange(5)
    with pytest.raises(UserError, match="true class"):
        SEP(**SEP_OPTIONS, shift=5).fit(_five_classes(), SingleProcess("cpu"))
    with pytest.raises(UserError, match="true class"):
        TAP(**TAP_OPTIONS, shift=5, goal="targeted").fit(_five_classes(), SingleProcess("cpu"))
    assert not (wrong_targets(truth, "classification", 5, 7) == truth).any()
    assert not (wrong_targets(truth % 2, "multilabel", 5, 1) == truth % 2).any()
    # SEP's default, half of the classes: the 5 of 10 that it was published with, and never none.
    SEP(**SEP_OPTIONS).fit(_five_classes(), SingleProcess("cpu"))


def _five_classes():
    data = pictures("classification")
    return ArrayDataset(data.images, torch.arange(len(data)) % 5, data.ids, "classification", 5)


def test_no_sample_is_left_out_of_a_pass_and_none_trains_alone():
    for count in range(1, 14):
        cut = joined_batches(range(count), 4)
        assert [index for batch in cut for index in batch] == list(range(count))
        assert count == 1 or min(map(len, cut)) > 1


def test_em_stops_when_the_training_error_is_low():
    data = pictures("classification")

    class Counting(SingleProcess):
        steps = 0

        def step(self, done, total, state, **metrics):
            self.steps = done

    runtime = Counting("cpu")
    ErrorMinimising(**{**EM, "rounds": 9, "stop_error": 0.99}).fit(data, runtime)
    # The error is at most 0.99 after the first round already: three steps of the model, three batches of noise.
    assert runtime.steps == 6


@pytest.mark.parametrize(
    ("method", "options", "task", "says"),
    [
        (ErrorMinimising, {**EM, "region": "roi"}, "classification", "region roi"),
        (ErrorMinimising, {**EM, "wise": "class"}, "multilabel", "multi-label"),
        (ErrorMinimising, {**EM, "variant": "salm"}, "segmentation", "variant alternating"),
        (ErrorMinimising, {**EM, "variant": "auto", "psnr": 40}, "classification", "smaller eps"),
        (ErrorMinimising, {"variant": "salm", "rounds": 9}, "classification", "rounds is of variant alternating"),
        (ErrorMinimising, {"pgd_steps": 3}, "segmentation", "pgd_steps is of variant salm"),
        (ErrorMinimising, {**EM, "start": "stored"}, "segmentation", "start stored"),
        (SEP, {**SEP_OPTIONS, "checkpoints": 99}, "segmentation", "99 checkpoints"),
        (SEP, SEP_OPTIONS, "multilabel", "multi-label"),
        (LSP, {"patch": 24}, "classification", "smaller --patch"),
        (LSP, {"patch": 24, "psnr": 45}, "classification", "smaller --patch"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_told(method, options, task, says):
    with pytest.raises(UserError, match=says):
        method(**options).fit(pictures(task), SingleProcess("cpu"))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ErrorMinimising, {"variant": "salm", "wise": "class"}),
        (ErrorMinimising, {"eps": 0.6}),
        (ErrorMinimising, {"release": "stored"}),
        (TAP, {"restarts": 0}),
        (SEP, {"step_size": 0}),
        (LSP, {"patch": 0}),
        (AR, {"growth": 1}),
    ],
)
def test_impossible_settings_are_refused(method, options):
    with pytest.raises(UserError, match=method.name):
        method(**options)


def test_the_defaults_are_what_the_authors_call_their_best():
    assert TAP().config.goal == "targeted"
    sep = SEP().config
    assert (sep.objective, sep.variance, sep.epochs, sep.checkpoints, sep.pgd_steps) == (
        "feature",
        "reduced",
        120,
        30,
        30,
    )


@pytest.mark.parametrize(
    ("name", "wanted"), [("em", 46.0), ("em roi class", 49.0), ("tap", 41.0), ("lsp", 45.0), ("ar", 40.0)]
)
def test_a_rival_at_an_equal_psnr(name, wanted):
    """Its noise scaled, within its region and a bound that is told, whatever the batch."""
    data = pictures()
    method, options = SETTINGS[name]
    protector = method(**options, psnr=wanted).fit(data, SingleProcess("cpu"))
    images, masks, ids = data.read(range(len(data)))
    saved = quantise(protector.perturb(images, masks, ids), images, protector.budget().levels)
    assert mean_psnr(map(psnr, images, saved)) == pytest.approx(wanted, abs=0.01)
    support = protector.support(masks)
    assert support is None or not ((saved != images) & ~support).any()
    other = method(**options, psnr=wanted)
    other.load_state_dict(through_a_file(protector.state_dict()))
    alone = quantise(other.perturb(images[3:4], masks[3:4], ids[3:4]), images[3:4], other.budget().levels)
    assert torch.equal(alone, saved[3:4])


@pytest.mark.parametrize(
    ("method", "options", "task", "found"),
    [
        (ErrorMinimising, {**EM, "passes": 60, "noise_steps": 20}, "segmentation", {"rounds": 2}),
        (ErrorMinimising, {"passes": 102, "batch_size": 4}, "classification", {"steps": 5, "decay_every": 2}),
        # A set smaller than a batch is one batch: each step sees every image once.
        (ErrorMinimising, {**EM, "passes": 60, "unet_batch_size": 99}, "segmentation", {"rounds": 12}),
        (ErrorMinimising, {"passes": 102, "batch_size": 99}, "classification", {"steps": 2}),
        (TAP, {**TAP_OPTIONS, "passes": 50, "restarts": 4}, "segmentation", {"pgd_steps": 12}),
        (SEP, {**SEP_OPTIONS, "passes": 50, "checkpoints": 4}, "segmentation", {"pgd_steps": 4}),
        (
            SEP,
            {**SEP_OPTIONS, "passes": 50, "checkpoints": 4, "variance": "plain"},
            "classification",
            {"pgd_steps": 12},
        ),
    ],
)
def test_passes_say_how_long_a_fit_is(method, options, task, found):
    """Gradients per image, of training and noise alike."""
    config = method(**options).config.sized(11, task)
    assert {name: getattr(config, name) for name in found} == found


def test_passes_that_leave_nothing_for_the_noise_are_told():
    with pytest.raises(UserError, match="passes 40"):
        TAP(passes=40).fit(pictures(), SingleProcess("cpu"))


def test_passes_are_gradients_of_every_image(monkeypatch):
    """TAP: two epochs of training, and three steps from each of two starts, of every image."""
    seen = []
    losses = Surrogate.losses

    def counted(self, images, targets, net=None):
        if torch.is_grad_enabled():
            seen.append(len(images))
        return losses(self, images, targets, net)

    monkeypatch.setattr(Surrogate, "losses", counted)
    TAP(**{**TAP_OPTIONS, "passes": 8, "restarts": 2}).fit(pictures(), SingleProcess("cpu"))
    assert sum(seen) == 8 * 11
