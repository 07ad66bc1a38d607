"""What is not installed is named, with the extra that brings it."""

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from medveil.launch.cli import main
from medveil.launch.extras import EXTRAS
from tests.conftest import ROOT

SWEEP = "grid: [{data: 'phantom:cls:8:16', protectors: [none], exploiters: [{model: resnet18}]}]"


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("medmnist", "audit", "protect --method random --data medmnist:breastmnist --out {folder}/out"),
        ("submitit", "cluster", "sweep {folder}/small.yaml --cluster slurm --dry-run"),
        ("matplotlib", "report", "sweep {folder}/small.yaml --runs {folder}/runs"),
    ],
)
def test_a_missing_package_is_one_line_that_names_its_extra(
    package: str,
    extra: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "small.yaml").write_text(f"name: small\n{SWEEP}")
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(command.format(folder=tmp_path).split()) == 2
    said = capsys.readouterr().err
    assert said == f"medveil: {package} is not installed, which this needs: pip install 'medveil[{extra}]'\n"
    assert {path.name for path in tmp_path.iterdir()} == {"small.yaml"}


def test_the_extras_are_those_of_the_project() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads pyproject.toml")
    with (ROOT / "pyproject.toml").open("rb") as file:
        told = tomllib.load(file)["project"]["optional-dependencies"]
    brought = {(re.split("[<>=; ]", line)[0].lower(), extra) for extra in set(EXTRAS.values()) for line in told[extra]}
    found = packages_distributions()
    named = {(found[package][0].lower().replace("_", "-"), extra) for package, extra in EXTRAS.items()}
    assert named == brought
    assert set(told["all"][0].removeprefix("medveil[").removesuffix("]").split(",")) == set(EXTRAS.values())
