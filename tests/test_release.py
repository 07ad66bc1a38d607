"""A release: its versions are in step, and its README leads somewhere from a package index too."""

import io
import re
from pathlib import Path

import pytest
from readme_renderer import markdown

from tests.conftest import ROOT
from tools.release import Wrong, absolute, notes_of, version_of

ADDRESS = "https://example.org/someone/medveil"


def project(root: Path, version: str, cited: str, heading: str, date: str = "2026-12-01") -> Path:
    """A project with just what says its version."""
    (root / "medveil").mkdir()
    (root / "medveil/__init__.py").write_text(f'"""Text."""\n\n__version__ = "{version}"\n')
    (root / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {cited}\ndate-released: {date}\n")
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n\n- News.\n\n## [0.1.0]\n\nOld.\n")
    return root


def test_the_readme_renders_with_links_that_lead_from_anywhere() -> None:
    text = absolute((ROOT / "README.md").read_text(), ADDRESS, "v9.9.9")
    warnings = io.StringIO()
    html = markdown.render(text, stream=warnings)
    assert html is not None, warnings.getvalue()
    links = set(re.findall(r'(?:href|src)="([^"]+)"', html))
    assert {link for link in links if not link.startswith(("https://", "#"))} == set()
    ours = {
        link.removeprefix(f"{ADDRESS}/blob/v9.9.9/").partition("#")[0] for link in links if link.startswith(ADDRESS)
    }
    assert len(ours) > 5
    assert [path for path in ours if not (ROOT / path).exists()] == []
    assert absolute("![a](b/c.png) [d](#e) [f](https://g.h)", ADDRESS, "v1") == (
        f"![a]({ADDRESS}/raw/v1/b/c.png) [d](#e) [f](https://g.h)"
    )


def test_this_version_is_in_step() -> None:
    assert notes_of(ROOT, version_of(ROOT))


@pytest.mark.parametrize(
    ("version", "cited", "heading", "said"),
    [
        ("1.2.0", "1.2.0", "[1.2.0] - 2026-12-01", None),
        ("1.2.0.dev0", "1.2.0.dev0", "[Unreleased]", None),
        ("1.2.0", "1.1.0", "[1.2.0] - 2026-12-01", "CITATION.cff has version 1.1.0"),
        ("1.2.0", "1.2.0", "[Unreleased]", "must be ## [1.2.0] - 2026-12-01"),
        ("1.2.0", "1.2.0", "[1.2.0] - 2026-12-02", "must be ## [1.2.0] - 2026-12-01"),
    ],
)
def test_what_is_out_of_step_is_named(tmp_path: Path, version: str, cited: str, heading: str, said: str | None) -> None:
    root = project(tmp_path, version, cited, heading)
    if said is None:
        assert notes_of(root, version_of(root)) == "- News."
    else:
        with pytest.raises(Wrong, match=re.escape(said)):
            notes_of(root, version_of(root))
