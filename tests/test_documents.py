"""What the documents tell a reader to type works, and what they point to is there."""

import re

import pytest
import yaml

import medveil
from medveil.launch.cli import COMMANDS
from tests.conftest import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")])


def test_the_readmes_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        small = block.replace('"hospital/x-rays"', '"phantom:cls:6:16"').replace("steps=300", "steps=1, width=2")
        exec(small, names)
    images, released = names["images"], names["released"]
    assert released.shape == images.shape == (6, 1, 16, 16)  # type: ignore[attr-defined]
    assert 0 < (released.int() - images.int()).abs().max() <= 8  # type: ignore[attr-defined]
    assert callable(names["cdc_conv2d"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_links_of_a_document_are_there(document) -> None:
    text = document.read_text()
    assert set(re.findall(r"(?:^ {4}|`)medveil ([a-z]+)", text, re.MULTILINE)) <= set(COMMANDS)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), target


def test_versions_stand_in_step() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == medveil.__version__
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"\nruff=={hooks['rev'].removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()
    heading = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert heading == ("Unreleased" if "dev" in medveil.__version__ else medveil.__version__)
