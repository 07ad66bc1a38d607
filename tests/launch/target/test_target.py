"""``protect --target`` and ``--strength``: what is probed, promised, released and refused."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medveil.launch.cli import main
from medveil.launch.errors import Interrupted
from medveil.launch.exploiters.config import SEGMENTATION
from medveil.launch.exploiters.training import train_exploiter
from medveil.launch.protect.methods import METHODS, protector_of
from medveil.launch.results import Outcome
from medveil.launch.target import probe as probing
from medveil.launch.target.job import fitting_recipes
from medveil.launch.target.search import Found, Probe, most_probes, search
from tests.launch.releases import both_manifests

RECIPES = ["", "coarse"]


class Bounds:
    """A world in which ``recipe`` reaches ``scores[recipe](levels)`` under blur, and half of it without an attack."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores
        self.asked: list[tuple[str, int, Sequence[str], float | None]] = []

    def __call__(self, recipe: str, levels: int, attacks: Sequence[str], limit: float | None) -> Probe:
        self.asked.append((recipe, levels, attacks, limit))
        blurred = 100 - self.scores[recipe or "plain"] * levels
        return Probe(recipe, levels, 50 - levels, {"none": [blurred / 2], "blur": [blurred - 2, blurred + 2]})


@pytest.mark.parametrize(("target", "levels"), [(88, 2), (90, 2), (58, 7), (40, 10), (29, 12)])
def test_the_faintest_bound_that_reaches_the_target_is_found(target: float, levels: int) -> None:
    bounds = Bounds(plain=3, coarse=6)
    found = search(target, RECIPES, ["none", "blur"], bounds)
    assert (found.kept, found.probe.recipe, found.probe.levels) == (True, "coarse", levels)
    assert found.probe.reached <= target < 100 - 6 * (levels - 1)
    assert len(bounds.asked) <= most_probes(2)


def test_a_recipe_that_is_second_at_the_top_may_be_the_faintest() -> None:
    def measure(recipe: str, levels: int, attacks: Sequence[str], limit: float | None) -> Probe:
        reached = {"steep": 96 - 8 * levels, "flat": 20 - levels}[recipe]
        return Probe(recipe, levels, 50, {"none": [float(reached)]})

    found = search(16, ["steep", "flat"], ["none"], measure)
    assert found.kept and (found.probe.recipe, found.probe.levels) == ("flat", 4)


def test_recipes_go_with_what_the_user_has_set() -> None:
    recipes = {"coarse": {"noise": "checkerboard", "cell": 2}, "coarser": {"noise": "checkerboard", "cell": 4}}
    assert list(fitting_recipes(recipes, {})) == ["", "coarse", "coarser"]
    assert list(fitting_recipes(recipes, {"noise": "generator"})) == [""]
    assert list(fitting_recipes(recipes, {"noise": "checkerboard", "cell": 4})) == [""]
    assert list(fitting_recipes(recipes, {"cell": 4})) == ["", "coarser"]


def test_the_hardest_attack_is_tried_first_once_it_is_known() -> None:
    bounds = Bounds(plain=3, coarse=6)
    search(60, RECIPES, ["none", "blur"], bounds)
    assert bounds.asked[:2] == [("", 12, ["none", "blur"], None), ("coarse", 12, ["none", "blur"], None)]
    assert all(asked[2:] == (["blur", "none"], 60) for asked in bounds.asked[2:])


def test_a_target_out_of_reach_ends_with_the_best_there_was() -> None:
    found = search(20, RECIPES, ["none", "blur"], Bounds(plain=5, coarse=4))
    assert found == Found(False, Probe("", 12, 38, {"none": [20.0], "blur": [38.0, 42.0]}))
    assert found.probe.worst == "blur"


class Trainings:
    """Exploiters that soon learn something. ``count``: those that were trained; no more than ``most`` may be."""

    def __init__(self) -> None:
        self.count, self.most = 0, 100

    def __call__(self, *args: Any, **options: Any) -> Outcome:
        if self.count == self.most:
            raise Interrupted(signal.SIGTERM, "in a test")
        self.count += 1
        return train_exploiter(*args, **options)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    counted = Trainings()
    small = {"width": 4, "epochs": 8, "batch_size": 8, "learning_rate": 1e-2}
    monkeypatch.setitem(SEGMENTATION, "demo", {**SEGMENTATION["demo"], **small})
    monkeypatch.setattr(probing, "train_exploiter", counted)
    return counted


def calibrate(out: Path, *flags: str, data: str = "phantom:seg:60:16", method: str = "pattern") -> int:
    usual = ["--preset", "demo", "--threads", "1", "--seed", "1"]
    of_probes = ["--attacks", "none", "--effort", "quick"] if "--target" in flags else []
    return main(["protect", data, "--method", method, *usual, *of_probes, "--out", str(out), *flags])


def test_a_cut_calibration_goes_on_and_its_promise_is_that_of_the_release(
    tmp_path: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    out, board = tmp_path / "release", ("--pattern", "checkerboard")
    assert calibrate(out, *board, "--target", "3") == 1
    said = capsys.readouterr().out
    assert "at most 5 probes of 48 images, measured on 12 more with 1 attack" in said
    assert re.search(r"cannot below 12 levels: the best was \d+\.\d DSC under none", said)
    assert not out.exists()
    # The originals and the noise of 12 levels are known now, whatever the target.
    assert trainings.count == 2
    trainings.most = 3
    assert calibrate(out, *board, "--target", "45") == 128 + signal.SIGTERM
    trainings.most = 100
    capsys.readouterr()
    assert calibrate(out, *board, "--target", "45") == 0
    said = capsys.readouterr().out
    probes = [(int(bound), verdict) for bound, verdict in re.findall(r"(\d+) levels?: .*: (within|above) 45", said)]
    assert trainings.count == len(probes) + 1
    levels = min(bound for bound, verdict in probes if verdict == "within")
    assert max([0, *(bound for bound, verdict in probes if verdict == "above")]) == levels - 1
    assert re.search(rf"reached at most \d+\.\d DSC, under none, .*; {levels} level", said)
    assert max(sample["max_change"] for sample in both_manifests(out)["samples"]) == levels


def test_recipes_that_come_to_the_same_bytes_are_trained_on_once(
    tmp_path: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    """On small images Veil's default is one of its recipes, cells of 1 pixel: six noises beside the originals."""
    assert calibrate(tmp_path / "release", "--target", "3", method="veil") == 1
    assert "4 pixels, 12 levels" in capsys.readouterr().out
    assert trainings.count == 7


def test_a_promise_does_not_rest_on_a_lucky_last_epoch() -> None:
    falling = [{"epoch": epoch, "dsc": dsc} for epoch, dsc in enumerate([0.9, 0.8, 0.3, 0.5, 0.1], 1)]
    assert probing.highest(Outcome({"dsc": 0.1}, curve=falling), "dsc") == 50
    assert probing.highest(Outcome({"dsc": 0.1}), "dsc") == 10


def test_what_cannot_be_measured_is_refused_before_any_noise(
    tmp_path: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(tmp_path / "out", "--target", "99") == 2
    assert "even the originals teach a model no more than" in capsys.readouterr().err
    assert trainings.count == 1
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(tmp_path / "out", "--target", "50", "--dry-run", data="phantom:cls:40:16") == 0
    assert "at most about" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_settings_of_their_method() -> None:
    named = [
        (name, one) for name, settings in METHODS.items() for some in settings.recipes.values() for one in some.values()
    ]
    assert len(named) >= 4
    for name, options in named:
        protector = protector_of(name)(**options)
        assert all(getattr(protector.config, key) == value for key, value in options.items())


@pytest.mark.parametrize(
    ("flags", "method", "message"),
    [
        (["--target", "0"], "pattern", "--target: must be above 0 and below 100 percent, not 0"),
        (["--target", "30", "--eps", "4/255"], "pattern", "give one of them"),
        (["--target", "30", "--strength", "low"], "pattern", "give one of them"),
        (["--target", "30"], "none", "none has none: choose another method"),
        (["--strength", "high"], "none", "none has none: choose another method"),
        (["--target", "30", "--share", "50"], "pattern", "protected as a whole"),
        (["--target", "30", "--attacks", "blurr"], "pattern", "there is no 'blurr'"),
        (["--target", "30", "--attacks", "pretrained"], "pattern", "no weights"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    flags: list[str], method: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(tmp_path / "out", *flags, method=method) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_strength_is_a_bound(tmp_path: Path) -> None:
    assert calibrate(tmp_path / "out", "--strength", "medium", data="phantom:seg:10:16") == 0
    assert both_manifests(tmp_path / "out")["budget"]["levels"] == 8
