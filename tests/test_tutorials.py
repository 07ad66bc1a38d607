"""The tutorials, and the pages that work on generated data: what a reader is told to type is typed, in its order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.tutorials

PAGES = ["tutorials/release", "tutorials/protector", "protocol", "operators"]

_BLOCK = re.compile(
    r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$|^((?: {4}medveil [^\n]*\n)+)', re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_can_follow(page: str, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "medveil"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m medveil.launch.cli "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    said, ran = "", 0
    for kind, title, text, plain in _BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text()):
        if title:
            (tmp_path / title).write_text(text)
        elif kind == "text":
            missing = [line for line in text.splitlines() if line not in said]
            assert missing == [], said
        elif kind in ("python", "shell") or (plain and "phantom:" in plain):
            program = [sys.executable, "-"] if kind == "python" else ["bash", "-eu"]
            run = {"cwd": tmp_path, "env": told, "capture_output": True, "text": True, "check": False}
            ended = subprocess.run(program, input=text or plain, **run)
            assert ended.returncode == 0, f"{text or plain}\n{ended.stdout}\n{ended.stderr}"
            said, ran = ended.stdout, ran + 1
    assert ran > 0
