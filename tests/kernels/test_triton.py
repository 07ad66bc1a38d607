"""The Triton kernels on any machine: run in the interpreter, and compiled ahead of time for three architectures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

pytest.importorskip("triton")

import triton

from tests.kernels import ahead
from tests.kernels.variants import launches

ROOT = Path(__file__).parents[2]
OLD_TRITON = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
NEW_NUMPY = tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4)


@pytest.mark.skipif(OLD_TRITON and NEW_NUMPY, reason="Triton 3.6 interprets kernels with numpy below 2.4 only")
def test_kernels_in_the_interpreter_equal_the_references():
    operators = ["lbp", "clip", "topk", "cdc", "draws", "norms"]
    command = [sys.executable, "-m", "tests.kernels.interpreted", *operators]
    told = {"cwd": ROOT, "env": os.environ | {"TRITON_INTERPRET": "1"}}
    done = subprocess.run(command, **told, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"passed {operator}" for operator in operators]


def test_compiled_kernels_keep_their_budgets():
    assert list(ahead.check(json.loads(ahead.BUDGETS.read_text()), dict(launches()))) == []
