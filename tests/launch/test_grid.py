"""What a sweep file may say, the cells that it stands for, and the dry run."""

import pytest

from launch.cli import main
from launch.grid import read_sweep

SWEEP = """
name: tiny
seeds: [0, 1]
grid:
  - data: [phantom:cls, phantom:cls:40]
    protectors:
      - random
      - {method: salm, preset: cpu, mode: [paper, strict], k: 10}
    exploiters:
      - {model: resnet18, preset: cpu, width: 4}
    defences: [none, blur]
  - data: phantom:seg
    protectors: [none]
"""


def sweep(tmp_path, text=SWEEP):
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return path


def test_a_grid_is_every_combination_in_order(tmp_path):
    cells = read_sweep(sweep(tmp_path)).cells()
    assert len(cells) == 2 * 3 * 2 * 2 + 2
    first, last = cells[0].columns(), cells[-1].columns()
    assert first == ("phantom:cls", "random", "", "resnet18 width=4", "none", "0")
    assert last == ("phantom:seg", "none", "", "", "", "1")
    assert {c.columns()[2] for c in cells if c.method.name == "salm"} == {"mode=paper k=10", "mode=strict k=10"}


def test_dry_run_prints_one_tab_separated_line_per_cell_and_writes_nothing(tmp_path, capsys):
    assert main(["sweep", str(sweep(tmp_path)), "--dry-run", "--runs", str(tmp_path / "runs"), "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 3 * 2 + 1
    assert all(len(line.split("\t")) == 6 and line.endswith("\t3") for line in lines)
    assert not (tmp_path / "runs").exists()


def test_only_folders_are_held_out_by_default(tmp_path):
    text = SWEEP.replace("[phantom:cls, phantom:cls:40]", "[phantom:cls, a.npz, some/folder]")
    held = {cell.data: cell.holdout for cell in read_sweep(sweep(tmp_path, text)).cells()}
    assert held == {"phantom:cls": 0.0, "a.npz": 0.0, "some/folder": 0.2, "phantom:seg": 0.0}


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ("method: salm", "method: slam", ["slam", "salm"]),
        ("k: 10", "kk: 10", ["'kk'", "salm"]),
        ("k: 10", "k: 1000", ["k must be", "salm"]),
        ("preset: cpu, mode", "preset: tiny, mode", ["tiny", "cpu"]),
        ("model: resnet18", "model: resnet", ["resnet"]),
        ("defences: [none, blur]", "defences: [none, blurr]", ["blurr"]),
        ("seeds: [0, 1]", "seeds: []", ["seeds"]),
        ("seeds: [0, 1]", "sedes: [0, 1]", ["sedes"]),
        ("name: tiny", "name: ../tiny", ["name"]),
        ("grid:", "grid: [1, {", ["YAML"]),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path, capsys, wrong, right, words):
    assert main(["sweep", str(sweep(tmp_path, SWEEP.replace(wrong, right))), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in ["tiny.yaml" if "YAML" in words else "", *words])


def test_a_missing_sweep_file_is_one_line(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
