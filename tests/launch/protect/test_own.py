"""A protector of the user's own, in a file that ``--method`` names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.cli import main
from medveil.launch.sweeping.grid import Sweep

STRIPES = """
from dataclasses import dataclass

import torch

from medveil.config import Levels, budget, build, setting
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import to_unit, whole_levels


@dataclass(frozen=True)
class StripesConfig(MethodSettings):
    name = "stripes"
    tasks = frozenset({"segmentation"})

    eps: Levels = budget(8 / 255, "largest change of a pixel")
    period: int = setting(2, "rows from one stripe to the next", unit="pixels", low=2)
    seed: int = setting(0, "seed of every random draw")


class Stripes:
    name = "stripes"
    Config = StripesConfig

    def __init__(self, **options):
        self.config = build(StripesConfig, options, self.name)

    def fit(self, data, runtime=None):
        return self

    def perturb(self, images, targets, ids):
        rows = torch.arange(images.shape[-2]) % self.config.period < self.config.period / 2
        return torch.clamp(to_unit(images) + self.config.eps * (1.0 - 2.0 * rows)[:, None] * targets, 0, 1)

    def budget(self):
        return Budget(levels=whole_levels(self.config.eps))

    def support(self, targets):
        return targets.bool()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


def protect(folder: Path, *words: str) -> int:
    return main(["protect", *words, "phantom:seg:4:24", "--out", str(folder / "release"), "--seed", "0"])


def test_a_file_protects_with_settings_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(STRIPES)
    with pytest.raises(SystemExit):
        main(["protect", "--method", str(file), "--help"])
    assert "--period PIXELS" in capsys.readouterr().out
    assert protect(tmp_path, "--method", str(file), "--period", "4", "--eps", "3/255") == 0
    release, none = tmp_path / "release", tmp_path / "none"
    assert main(["protect", "phantom:seg:4:24", "--method", "none", "--out", str(none), "--seed", "0"]) == 0
    for path in sorted((none / "images").rglob("*.png")):
        before, after = (np.asarray(Image.open(p), int) for p in (path, release / path.relative_to(none)))
        signs = np.sign(after - before)[
            :, np.asarray(Image.open(none / "masks" / path.relative_to(none / "images"))).any(0)
        ]
        assert np.abs(after - before).max() == 3
        assert {tuple(sorted(set(row) - {0})) for row in signs[:2]} <= {(), (-1,)}
        assert {tuple(sorted(set(row) - {0})) for row in signs[2:4]} <= {(), (1,)}
    # Changed, it is another method, whose release must not pass for this one's.
    file.write_text(STRIPES + "\n")
    capsys.readouterr()
    assert protect(tmp_path, "--method", str(file), "--period", "4", "--eps", "3/255") == 2
    assert "does not come from this data and these settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("x = 1", "one class with a perturb, not 0"),
        (STRIPES + "\nclass Other(Stripes): ...", "one class with a perturb, not 2"),
        (STRIPES.replace("def support", "def no_support"), "Stripes lacks support"),
        (STRIPES.replace("    Config = StripesConfig", ""), "Config must derive from MethodSettings"),
        ("import nothing_of_this_name", "does not run: ModuleNotFoundError"),
        ("def broken(:", "does not run: SyntaxError"),
        ("raise SystemExit(0)", "does not run: SystemExit"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    assert protect(tmp_path, "--method", str(file)) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ([] if text is None else ["mine.py"])


def test_a_sweep_runs_no_file() -> None:
    sweep = Sweep(name="s", grid=[{"data": "phantom:seg", "protectors": ["mine.py"]}])
    with pytest.raises(UserError, match="a sweep runs no files of code"):
        sweep.cells()
