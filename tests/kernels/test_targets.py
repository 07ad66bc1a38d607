"""What the kernels are to need on sm_90, by the counts of ``budgets.json``, to which ``ahead.py`` holds the code."""

import json
from pathlib import Path

import pytest

KERNELS = json.loads(Path(__file__).with_name("budgets.json").read_text())["kernels"]
HARD_CLIPS = ("clip grey", "clip colour", "clip grey given", "clip colour given")


@pytest.mark.parametrize(
    ("kernel", "elements", "instructions"),
    [
        ("cdc stem grey bf16: stem_fwd", 2048, 900),
        ("cdc stem colour bf16: stem_fwd", 2048, 1400),
        ("topk 784: topk_row", None, 200),  # a round of the search, for a whole row
        *((f"{name}: {'clip_flat' if 'given' in name else 'clip_walk'}", 64, 350) for name in HARD_CLIPS),
    ],
)
def test_instructions(kernel, elements, instructions):
    row = KERNELS[kernel]
    turns = 1 if elements is None else elements / row["elements"]
    assert row["sm_90"]["loop"] * turns <= instructions


def test_no_round_of_a_warp_s_row_waits_at_a_barrier():
    assert KERNELS["topk 784: topk_row"]["sm_90"]["barriers"] == 0


@pytest.mark.parametrize("name", HARD_CLIPS)
def test_images_move_128_bits_at_a_time(name):
    row = KERNELS[f"{name}: {'clip_flat' if 'given' in name else 'clip_walk'}"]["sm_90"]
    assert row["load"] == row["store"] == 128


def test_nothing_spills_on_any_architecture():
    spilled = {name for name, row in KERNELS.items() for what, of in row.items() if what[:3] == "sm_" and of["spilled"]}
    assert not spilled
