"""SALM: its two budgets on the saved bytes, its readings of the paper, and a fit that resumes and reproduces."""

import pytest
import torch

from medveil import graphs, keyed
from medveil.baselines import ErrorMinimising
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.losses import classification_loss
from medveil.quantise import quantise, to_unit
from medveil.runtime import SingleProcess
from medveil.salm import SALM, SALMConfig
from medveil.salm.noise import Visit
from tests import recorder
from tests.halting import Halting

TINY = {"steps": 4, "decay_every": 2, "width": 4, "pgd_steps": 3, "transforms": 2, "batch_size": 7}


def patches(count=20, channels=1, size=16, task="classification"):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    targets = torch.arange(count) % 3
    if task == "multilabel":
        targets = torch.stack([targets == 0, targets == 1], 1).to(torch.uint8)
    return ArrayDataset(images, targets, [f"train/{i}" for i in range(count)], task, 2 if task == "multilabel" else 3)


def released(salm, data):
    images, targets, ids = data.read(range(len(data)))
    return images, quantise(salm.perturb(images, targets, ids), images, salm.budget().levels)


@pytest.mark.parametrize(("k", "by"), [(10, "element"), (30, "element"), (10, "pixel")])
def test_strict_changes_at_most_k_percent_of_the_saved_elements(k, by):
    data = patches(channels=3)
    images, saved = released(SALM(**TINY, mode="strict", k=k, by=by).fit(data, SingleProcess("cpu")), data)
    changed = (saved != images).flatten(1).sum(1)
    assert changed.max() <= int(k / 100 * images[0].numel() + 1e-9)
    assert changed.min() > 0
    assert (saved.int() - images.int()).abs().max() <= 8


def test_paper_mode_with_a_random_start_changes_most_elements():
    images, saved = released(SALM(**TINY).fit(patches(), SingleProcess("cpu")), patches())
    assert (saved != images).float().mean() > 0.8
    assert (saved.int() - images.int()).abs().max() <= 8


@pytest.mark.parametrize(("mode", "moved"), [("paper", 25), ("strict", 25)])
def test_one_step_moves_exactly_the_top_k_against_the_gradient(mode, moved):
    config = SALMConfig(mode=mode, start="zero", k=10, pgd_steps=1, transforms=1, flip=False, padding=0, step_size=0.01)
    weights = torch.randn(1, 1, 16, 16)
    x = torch.full((1, 1, 16, 16), 0.5)
    visit = Visit(config, lambda images, _: (images * weights).sum((1, 2, 3)), "test", 0)
    noise = visit.noise(x, torch.zeros(1, dtype=torch.int64), keyed.keys_of(["a"]), torch.zeros_like(x))
    top = weights.abs().flatten().topk(moved).indices
    assert int((noise != 0).sum()) == moved
    assert torch.equal(noise.flatten()[top].sign(), -weights.flatten()[top].sign())


def test_the_gradient_is_the_mean_over_the_drawn_transforms():
    config = SALMConfig(transforms=3, padding=2)
    weights = torch.randn(1, 1, 16, 16)
    visit = Visit(config, lambda images, _: (images**2 * weights).sum((1, 2, 3)), "test", 4)
    x, keys, targets = torch.rand(2, 1, 16, 16), keyed.keys_of(["a", "b"]), torch.zeros(2, dtype=torch.int64)
    drawn = visit.transform(keys, 1, 3, x.shape)
    gradient = visit.gradient(x, targets, drawn)
    alone = visit.gradient(x[1:], targets[1:], visit.transform(keys[1:], 1, 3, x.shape))
    torch.testing.assert_close(gradient[1:], alone)
    single = Visit(SALMConfig(transforms=1, padding=2), visit.loss, "test", 4)
    one = single.gradient(x, targets, single.transform(keys, 1, 1, x.shape))
    assert not torch.allclose(gradient, one)


def test_an_interrupted_fit_ends_as_an_uninterrupted_one():
    data = patches()
    options = {**TINY, "start": "stored", "release": "stored"}
    whole = released(SALM(**options).fit(data, SingleProcess("cpu")), data)[1]
    halting = Halting(at=2)
    with pytest.raises(InterruptedError):
        SALM(**options).fit(data, halting)
    assert torch.equal(whole, released(SALM(**options).fit(data, Halting(state=halting.state)), data)[1])


def test_kept_noise_starts_at_random(monkeypatch):
    """Algorithm 1, line 2: a sample's first visit starts from noise of its own, not from zero."""
    starts = {}
    made = Visit.noise

    def noise(visit, x, targets, keys, start):
        for key, one in zip(keys.tolist(), start, strict=True):
            starts.setdefault(key, one)
        return made(visit, x, targets, keys, start)

    monkeypatch.setattr(Visit, "noise", noise)
    data = patches()
    SALM(**TINY, start="stored", release="stored").fit(data, SingleProcess("cpu"))
    first = torch.stack(list(starts.values())) * 255
    assert first.abs().max() <= 8 and first.std() > 4  # uniform in +-8 has 4.6
    assert len(starts) == len({tuple(one.flatten().tolist()) for one in starts.values()}) == 20


def test_stored_noise_belongs_to_ids_not_to_positions():
    data = patches()
    salm = SALM(**TINY, start="stored", release="stored").fit(data, SingleProcess("cpu"))
    images, targets, ids = data.read([4, 2])
    swapped = salm.perturb(images.flip(0), targets.flip(0), ids[::-1])
    assert torch.equal(salm.perturb(images, targets, ids), swapped.flip(0))
    with pytest.raises(ValueError, match="fitted"):
        salm.perturb(images[:1], targets[:1], ["train/99"])


def test_every_sample_is_protected_the_last_partial_batch_too():
    data = patches(count=15)
    images, saved = released(SALM(**TINY, mode="strict").fit(data, SingleProcess("cpu")), data)
    assert (saved != images).flatten(1).any(1).all()


def test_em_is_salm_with_nothing_masked():
    data = patches()
    options = {**TINY, "start": "zero"}
    em = released(ErrorMinimising(**options).fit(data, SingleProcess("cpu")), data)
    salm = released(SALM(**options, k=100).fit(data, SingleProcess("cpu")), data)
    assert torch.equal(em[1], salm[1])
    assert (em[1] != em[0]).float().mean() > 0.9


def test_multilabel_and_colour_sets_are_protected():
    data = patches(channels=3, task="multilabel")
    untransformed = {**TINY, "transforms": 1, "flip": False, "padding": 0}
    salm = SALM(**untransformed, mode="strict").fit(data, SingleProcess("cpu"))
    images, saved = released(salm, data)
    changed = (saved != images).flatten(1).sum(1)
    assert changed.min() > 0 and changed.max() <= images[0].numel() // 10
    # To the source model the noise makes each image more like its labels.
    with torch.no_grad():
        logits = [salm.source.eval()(to_unit(batch)) for batch in (images, saved)]
    before, after = (classification_loss(each, data.targets, "multilabel") for each in logits)
    assert (after < before).all()


def test_protected_images_stay_in_range_before_rounding():
    data = patches()
    images, targets, ids = data.read(range(len(data)))
    protected = SALM(**TINY).fit(data, SingleProcess("cpu")).perturb(images, targets, ids)
    assert protected.min() >= 0 and protected.max() <= 1
    assert (protected - to_unit(images)).abs().max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 101}, {"eps": 2}, {"mode": "strict", "start": "stored"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match="salm"):
        SALM(**options)


def test_steps_that_cancel_do_not_leave_a_sample_unprotected():
    config = SALMConfig(mode="strict", pgd_steps=2, transforms=1, flip=False, padding=0, step_size=0.01)
    # A loss with its minimum between two steps: every step goes back on the one before.
    visit = Visit(config, lambda images, _: ((images - 0.505) ** 2).sum((1, 2, 3)), "test", 0)
    x = torch.full((1, 1, 16, 16), 0.5)
    noise = visit.noise(x, torch.zeros(1, dtype=torch.int64), keyed.keys_of(["a"]), torch.zeros_like(x))
    assert int((noise != 0).sum()) == 25


@pytest.mark.parametrize("mode", ["paper", "strict"])
def test_replayed_and_compiled_visits_make_the_same_noise(mode, monkeypatch):
    recorded, compiled = [], []

    def record(function, inputs):
        recorded.append(len(inputs[0]))
        return recorder.record(function, inputs)

    monkeypatch.setattr(graphs, "recordable", lambda tensors: True)
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(torch, "compile", lambda net: lambda x: compiled.append(len(x)) or net(x))
    data = patches()
    plain = released(SALM(**TINY, mode=mode, graph=False).fit(data, SingleProcess("cpu")), data)[1]
    fast = SALM(**TINY, mode=mode, compile=True).fit(data, SingleProcess("cpu"))
    assert recorded == [7]  # two full batches and one of 6, which is computed eagerly
    assert set(compiled) == {2 * 7, 2 * 6}
    assert torch.equal(plain, released(fast, data)[1])
    assert recorded == [7, 20]
