"""Both containers are one recipe: the same base, the same files, the same script, which installs what is pinned."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "containers"


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], " ".join(line.split()[1:])) for line in text.splitlines() if line.strip()]


def definition() -> tuple[dict[str, str], dict[str, list[str]]]:
    """The header and the sections of the Apptainer definition."""
    head, *parts = re.split(r"^%", (FOLDER / "medveil.def").read_text(), flags=re.MULTILINE)
    header = dict(re.findall(r"^(\w+): (.+)$", head, re.MULTILINE))
    sections = {part.split("\n", 1)[0]: part.split("\n", 1)[1].split("\n") for part in parts}
    return header, {
        name: [line.strip() for line in lines if line.strip() and "# " not in line] for name, lines in sections.items()
    }


def test_both_start_from_one_image_with_the_same_files_and_steps() -> None:
    docker, (header, sections) = dockerfile(), definition()
    assert ("FROM", header["From"]) == docker[0]
    copied = [name for word, rest in docker if word == "COPY" for name in rest.split()[:-1]]
    assert copied == [line.split()[0] for line in sections["files"]]
    assert all(
        line.split() == [name, f"/opt/medveil/{name}"] for name, line in zip(copied, sections["files"], strict=True)
    )
    steps = [step.strip() for word, rest in docker if word == "RUN" for step in rest.split("&&")]
    theirs = [line.replace("{{ TORCH }}", "$TORCH").replace("/opt/medveil/", "") for line in sections["post"]]
    assert steps == theirs
    assert ("ARG", "TORCH=cuda") in docker
    assert sections["arguments"] == ["TORCH=cuda"]
    assert ("ENTRYPOINT", '["medveil"]') in docker
    # Nothing else of the folder reaches the image: no runs, no keys, no history.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    assert [line[1:] for line in ignored if line.startswith("!")] == copied


def test_the_files_are_all_that_an_installation_needs() -> None:
    copied = {name for word, rest in dockerfile() if word == "COPY" for name in rest.split()[:-1]}
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
    links = {path.readlink().name for path in (ROOT / "medveil").iterdir() if path.is_symlink()}
    assert links | {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "medveil", "containers"} == copied


@pytest.mark.parametrize("torch", ["cuda", "cpu", "rocm"])
def test_the_script_installs_what_is_pinned(torch: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$(pwd) $*" >> "$(dirname "$0")/calls"\n')
    python.chmod(0o755)
    told = {**os.environ, "PYTHON": str(python), "TORCH": torch}
    ended = subprocess.run([FOLDER / "install.sh"], cwd=tmp_path, env=told, capture_output=True, text=True, check=False)
    if torch == "rocm":
        assert (ended.returncode, ended.stderr, (tmp_path / "calls").exists()) == (
            2,
            "TORCH=rocm: cuda or cpu\n",
            False,
        )
        return
    assert ended.returncode == 0, ended.stderr
    pip = f"{ROOT} -m pip install --no-cache-dir --constraint constraints.txt"
    cpu = f"{pip} --index-url https://download.pytorch.org/whl/cpu torch torchvision"
    rest = [f"{pip} .[all]", f"{ROOT} -m pip check", f"{ROOT} -m medveil.launch.cli --version"]
    assert (tmp_path / "calls").read_text().splitlines() == [*([cpu] if torch == "cpu" else []), *rest]
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==", pinned, re.MULTILINE)
    assert re.search(r"^torchvision==", pinned, re.MULTILINE)
