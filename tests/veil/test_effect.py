"""What a model learns from files that Veil has protected."""

from pathlib import Path

from medveil.runtime import SingleProcess
from medveil.veil import Veil
from tests.baselines import test_effect_on_classes as on_classes
from tests.baselines.test_effect import clean_score, discs, released

# A generator that never sees its noise on its own image, for 100 steps.
SMALL = {
    "noise": "generator",
    "eps": "24/255",
    "texture": "fixed",
    "swap": 1.0,
    "steps": 100,
    "surrogates": 2,
    "restart": 30,
}
RATES = {"width": 4, "depth": 2, "learning_rate": 1e-2, "surrogate_learning_rate": 1e-2}


def test_a_model_learns_the_noise_instead_of_the_image(tmp_path: Path) -> None:
    data = discs(seed=1)
    veil = Veil(**SMALL, **RATES).fit(data, SingleProcess("cpu"))
    assert clean_score(released(veil, data, tmp_path)) < 0.8


def test_a_model_learns_the_noise_instead_of_the_class(tmp_path: Path) -> None:
    data = on_classes.lesions(seed=1)
    sparse = {"swap": 1.0, "steps": 90, "surrogates": 1, "restart": 30, "batch_size": 32, "width": 8}
    veil = Veil(**sparse, surrogate_learning_rate=3e-3, learning_rate=0.05).fit(data, SingleProcess("cpu"))
    files = on_classes.released(veil, data, tmp_path)
    assert (files.images != data.images).flatten(1).sum(1).max() <= on_classes.SIDE**2 // 10
    assert on_classes.clean_score(files) < 0.8
