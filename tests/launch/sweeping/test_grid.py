"""What a sweep file may say, the cells that it stands for, and the dry run."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from medveil.launch.cli import main
from medveil.launch.commands.sweep import DEMO
from medveil.launch.report.published import read_published
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.grid import read_sweep
from medveil.launch.sweeping.plan import plan

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
    attacks: [none, blur]
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


def test_a_name_that_the_terminal_cannot_show_is_shown_as_an_escape(tmp_path, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", shown)
    assert main(["sweep", str(sweep(tmp_path, SWEEP.replace("phantom:seg", "Herzgröße"))), "--dry-run"]) == 0
    shown.flush()
    assert b"Herzgr\\xf6\\xdfe\tnone" in shown.buffer.getvalue()


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
        ("attacks: [none, blur]", "attacks: [none, blurr]", ["blurr"]),
        ("attacks: [none, blur]", "defences: [none, blur]", ["'defences'", "attacks"]),
        ("seeds: [0, 1]", "seeds: []", ["seeds"]),
        ("seeds: [0, 1]", "sedes: [0, 1]", ["sedes"]),
        ("name: tiny", "name: ../tiny", ["name"]),
        ("grid:", "grid: [1, {", ["YAML"]),
        ("name: tiny", "name: tiny\npreset: [cpu]", ["preset", "cpu"]),
        ("mode: [paper", "seed: 7, mode: [paper", ["seed", "seeds:"]),
        ("model: resnet18", "seed: 7, model: resnet18", ["seed", "seeds:"]),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path, capsys, wrong, right, words):
    assert main(["sweep", str(sweep(tmp_path, SWEEP.replace(wrong, right))), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in ["tiny.yaml" if "YAML" in words else "", *words])


def test_without_an_installation_the_script_says_what_to_type():
    root = Path(__file__).parents[3]
    # -S leaves out installed packages, torch among them; -E whatever the environment adds.
    ran = subprocess.run(
        [sys.executable, "-S", "-E", "launch/sweep.py"], cwd=root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "make demo" in ran.stderr


def test_a_missing_sweep_file_is_one_line(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


NAMED = """
name: tiny
preset: cpu
presets:
  cpu: {size: 16, seeds: [0, 1]}
  paper: {size: 32}
folders: {lesions: null, other: null}
published: printed.csv
grid:
  - data: [lesions, other]
    protectors: [{method: random, eps: 8/255}, {method: random, eps: 4/255}]
    exploiters: [{model: unet, width: 2, epochs: 1}, {model: attention-unet, width: 2, epochs: 1}]
"""
PRINTED = """data,protector,options,exploiter,attack,metric,value
lesions,random,eps=8/255,unet width=2 epochs=1,none,dsc,50
lesions,random,eps=8/255,mean of 2,none,dsc,40
lesions,random,eps=8/255,,none,psnr,31.5
"""


def test_a_preset_sizes_a_sweep_and_flags_go_over_it(tmp_path):
    path = sweep(tmp_path, NAMED)
    cpu, paper = read_sweep(path), read_sweep(path, {"preset": "paper"})
    assert {(c.size, c.seed, c.method.preset, c.exploiter.preset) for c in cpu.cells()} == {
        (16, 0, "cpu", "cpu"),
        (16, 1, "cpu", "cpu"),
    }
    assert {(c.size, c.seed, c.method.preset, c.exploiter.preset) for c in paper.cells()} == {(32, 0, "paper", "paper")}
    assert {c.seed for c in read_sweep(path, {"seeds": [5]}).cells()} == {5}


def test_named_data_is_where_the_user_says_and_the_rest_is_skipped(tmp_path, capsys):
    """Published values stand beside ours: by options, for the mean of the exploiters, and for PSNR."""
    path, runs = sweep(tmp_path, NAMED), tmp_path / "runs"
    (tmp_path / "printed.csv").write_text(PRINTED)
    common = ["sweep", str(path), "--runs", str(runs), "--workers", "0", "--seeds", "0"]
    assert main(common) == 2
    assert "--data lesions=FOLDER" in capsys.readouterr().err
    assert main([*common, "--data", "lesion=x"]) == 2
    assert "names no such data" in capsys.readouterr().err
    assert main([*common, "--data", "lesions=phantom:seg:8:16"]) == 0
    told = capsys.readouterr()
    assert "--data other=FOLDER" in told.err
    table = (runs / "tiny" / "report" / "results.md").read_text()
    head: list[str] = []
    published = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells[:1] == ["protector"]:
            head = cells
        elif cells[:1] == ["random"] and "published" in head:
            row = dict(zip(head, cells, strict=True))
            published[row["options"], row["exploiter"]] = row["published"]
    assert published["eps=8/255", "unet width=2 epochs=1"] == "50.0"
    assert published["eps=8/255", "mean of 2"] == "40.0"
    assert published["eps=4/255", "unet width=2 epochs=1"] == ""
    assert "no folder was given for other" in table
    assert "Ours: preset cpu, 16 px, seed 0; data may differ, and networks and length of training do." in table


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        *[("umed_table1", 33), ("umed_table2", 99), ("umed_table3", 48), ("umed_table4", 30), ("umed_table5", 44)],
        *[("salm_table1", 140), ("salm_table2", 80), ("salm_table3", 120), ("salm_table4", 20), ("salm_table5", 9)],
        *[("salm_table6", 84), ("salm_table8", 100), ("salm_figure3", 6)],
    ],
)
def test_the_papers_sweeps_have_the_papers_cells_and_values(name, cells):
    """Every published row belongs to a cell, or to the mean over the cells of several exploiters, of one reading."""
    made = read_sweep(DEMO.parent / f"{name}.yaml", {"preset": "paper"})
    columns = {cell.columns()[:5] for cell in made.cells()}
    assert len(columns) == len(made.cells()) == cells
    for data, protector, options, exploiter, attack, _ in read_published(Path(made.published)):
        assert options is not None and "strict" not in options  # beside that reading alone which it belongs to
        of_row = [c for c in columns if c[:3] == (data, protector, options)]
        if not exploiter:  # how alike the images are, whatever is trained on them
            assert of_row
        elif exploiter.startswith("mean of"):
            assert len(of_row) == 4
        elif attack != "jpeg60":
            assert [c for c in of_row if c[3:] == (exploiter, attack)]


@pytest.mark.parametrize(
    ("name", "cells"), [("salm_figure2", 86), ("salm_figure5", 6), ("salm_figure6", 3), ("salm_figure7", 12)]
)
def test_the_papers_figures_have_their_cells(name, cells):
    assert len(read_sweep(DEMO.parent / f"{name}.yaml", {"preset": "paper"}).cells()) == cells


def test_a_block_may_take_some_of_the_seeds(tmp_path):
    path = tmp_path / "short.yaml"
    some = "{data: phantom:seg, protectors: [random], seeds: [0]}"
    path.write_text(f"seeds: [0, 1]\ngrid: [{{data: phantom:cls, protectors: [random]}}, {some}]\n")
    assert [(cell.data, cell.seed) for cell in read_sweep(path).cells()] == [
        ("phantom:cls", 0),
        ("phantom:cls", 1),
        ("phantom:seg", 0),
    ]
    assert [cell.data for cell in read_sweep(path, {"seeds": [1]}).cells()] == ["phantom:cls"]


def test_data_of_a_block_that_takes_none_of_the_seeds_may_be_named(tmp_path, capsys):
    path = tmp_path / "short.yaml"
    path.write_text(
        "seeds: [0, 1]\nfolders: {lesions: null, other: null}\ngrid:\n"
        "  - {data: lesions, protectors: [random], seeds: [0]}\n  - {data: other, protectors: [random]}\n"
    )
    common = ["sweep", str(path), "--dry-run", "--seeds", "1", "--data", "other=phantom:seg"]
    assert main([*common, "--data", "lesions=phantom:seg"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["other"]


def test_a_sweep_of_which_no_block_takes_a_seed_is_refused(tmp_path, capsys):
    path = tmp_path / "short.yaml"
    path.write_text("seeds: [0, 1]\ngrid: [{data: phantom:cls, protectors: [random], seeds: [0]}]\n")
    assert main(["sweep", str(path), "--dry-run", "--seeds", "1,2"]) == 2
    assert "1, 2" in capsys.readouterr().err


def test_a_time_without_quotes_is_hours_minutes_and_seconds(tmp_path):
    """YAML of old reads 1:30:00 as one number to the base of 60."""
    assert read_sweep(sweep(tmp_path, f"{SWEEP}slurm: {{time: 1:30:00}}\n")).slurm == {"time": "1:30:00"}


def test_data_that_only_some_cells_lack_stops_no_other(tmp_path):
    """They share a release, or the training on the originals."""
    path = tmp_path / "short.yaml"
    path.write_text(
        "folders: {lesions: null}\ngrid:\n"
        "  - {data: phantom:cls, protectors: [random], exploiters: [{model: unet, authorised: lesions}]}\n"
        "  - {data: phantom:cls, protectors: [random, {method: salm, classes: '1', support: lesions}],"
        " exploiters: [resnet18]}\n"
    )
    made = read_sweep(path)
    planned = plan(made, SweepFolder(tmp_path))
    jobs = {job.key: job for job in planned.jobs}
    assert all(set(job.needs) <= jobs.keys() for job in planned.jobs)
    for cell, *keys in planned.cells:
        runs = [key in jobs for key in keys if key is not None]
        assert all(runs) if made.lacks(cell) is None else not all(runs)
        assert (keys[-1] in planned.skipped) == (made.lacks(cell) is not None)


def test_a_demonstration_says_so_in_its_cells(tmp_path):
    """But not where the preset changes nothing: random signs are what they always are."""
    path = tmp_path / "short.yaml"
    protectors = "[random, umed, {method: em, preset: cpu}]"
    path.write_text(f"name: short\npreset: demo\ngrid: [{{data: phantom:seg, protectors: {protectors}}}]\n")
    found = [cell.columns()[1:3] for cell in read_sweep(path).cells()]
    assert found == [("random", ""), ("umed", "preset=demo"), ("em", "")]


@pytest.mark.parametrize("path", sorted(DEMO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_that_comes_with_the_project_can_be_planned(path):
    assert read_sweep(path).cells()
