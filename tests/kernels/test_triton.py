"""The Triton kernels on any machine: run in the interpreter, and compiled ahead of time for three architectures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

triton = pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
OLD_TRITON = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
NEW_NUMPY = tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4)


def run(*arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(OLD_TRITON and NEW_NUMPY, reason="Triton 3.6 interprets kernels with numpy below 2.4 only")
def test_kernels_in_the_interpreter_equal_the_references():
    operators = ["lbp", "clip", "topk", "cdc", "draws", "norms"]
    passed = run("tests.kernels.interpreted", *operators, TRITON_INTERPRET="1")
    assert passed.splitlines() == [f"passed {operator}" for operator in operators]


def test_compiled_kernels_keep_their_budgets():
    assert "within budget" in run("tests.kernels.ahead")
