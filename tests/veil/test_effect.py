"""What a model learns from files that Veil has protected."""

from pathlib import Path

from medveil.runtime import SingleProcess
from medveil.veil import Veil
from tests.baselines.test_effect import clean_score, discs, released

# A generator that never sees its noise on its own image, for 100 steps.
SMALL = {"eps": "24/255", "texture": "fixed", "swap": 1.0, "steps": 100, "surrogates": 2, "restart": 30}
RATES = {"width": 4, "depth": 2, "learning_rate": 1e-2, "surrogate_learning_rate": 1e-2}


def test_a_model_learns_the_noise_instead_of_the_image(tmp_path: Path) -> None:
    data = discs(seed=1)
    veil = Veil(**SMALL, **RATES).fit(data, SingleProcess("cpu"))
    assert clean_score(released(veil, data, tmp_path)) < 0.8
