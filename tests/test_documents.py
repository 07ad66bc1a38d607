"""What the documents tell a reader to type works, and what they point to is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import medveil
from medveil import kernels
from medveil.errors import UserError
from medveil.launch.cli import parse
from medveil.launch.protect.methods import METHODS
from medveil.launch.sweeping.grid import read_sweep
from tests.conftest import ROOT
from tools.site import settings_table

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])

SWEEP = re.compile(r"^(?:\S*python )?launch/sweep\.py")


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def commands_of(document: Path) -> list[str]:
    """The calls of medveil in code, fenced, indented or within a line, each as a person would type it."""
    text = document.read_text().replace("\\\n", " ")
    lines = [*re.findall(r"^\s*(medveil .*|\S*python launch/sweep\.py.*)$", text, re.MULTILINE)]
    lines += re.findall(r"`(medveil [^`\n]+|python launch/sweep\.py[^`\n]*)`", text)
    return [SWEEP.sub("medveil sweep", line.partition(" #")[0].rstrip(" ;&")) for line in lines]


def objection(words: list[str]) -> str:
    """What the command's own parser has against ``words``; "" for nothing."""
    try:
        parse([word for word in words if word not in ("...", "OPTIONS")])
    except SystemExit as end:  # --help, --version
        return str(end.code or "")
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets and files that the documents speak of."""
    root = tmp_path_factory.mktemp("reader")
    for folder in ("ultrasound", "kept-back", "ct"):
        for kind in ("images", "masks"):
            (root / "hospital" / folder / kind).mkdir(parents=True)
            Image.new("L", (16, 16), 255).save(root / "hospital" / folder / kind / "a.png")
    for folder in ("skin/melanoma", "skin/naevus", "x-rays/a", "x-rays/b"):
        (root / "hospital" / folder).mkdir(parents=True)
        Image.new("L", (16, 16), 255).save(root / "hospital" / folder / "a.png")
    own = re.findall(
        r'```python title="mine.py"\n(.*?)```', (ROOT / "docs/tutorials/protector.md").read_text(), re.DOTALL
    )
    for name in ("mine.py", "FILE.py"):
        (root / name).write_text(own[0])
    return root


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_of_a_document_is_one(
    document: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for line in commands_of(document):
        wrong = objection(shlex.split(line)[1:])
        # Within a line of prose a command may be named without what it is about.
        mentioned = f"`{line}`" in document.read_text() and re.search("are required|expected one argument", wrong)
        assert not wrong or mentioned, f"{line}: {wrong}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_of_a_document_are_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


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


def test_the_worked_sweep_has_the_cells_that_the_page_counts(tmp_path: Path) -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "lungs.yaml").write_text(block)
    cells = read_sweep(tmp_path / "lungs.yaml").cells()
    assert f"each of the {len(cells)} cells" in text


def test_every_page_has_a_place_on_the_site() -> None:
    def pages(entry: Any) -> Iterator[str]:
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []:
            yield from pages(inner)
        if isinstance(entry, str):
            yield entry

    found = [path.relative_to(ROOT / "docs") for path in sorted(ROOT.glob("docs/**/*.md"))]
    tables = {path.as_posix() for path in found if path.parts[0] == "results" and len(path.parts) > 2}
    placed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(placed) == sorted({path.as_posix() for path in found} - tables)


def test_the_api_pages_hold_every_operator_and_every_method() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs/api").glob("*.md")}
    assert set(re.findall(r"^::: medveil\.kernels\.(\w+)$", pages["kernels"], re.MULTILINE)) == set(kernels.__all__)
    shown = set(re.findall(r"^::: settings (\S+)$", "\n".join(pages.values()), re.MULTILINE))
    assert {f"{settings.__module__}.{settings.__name__}" for settings in METHODS.values()} <= shown
    assert "| `eps` | `4/255` | bound of the contour noise" in settings_table("medveil.umed.config.UMedConfig")


def test_versions_stand_in_step() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == medveil.__version__
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"\nruff=={hooks['rev'].removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()
    heading = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert heading == ("Unreleased" if "dev" in medveil.__version__ else medveil.__version__)
