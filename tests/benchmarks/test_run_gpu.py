"""The one call for a GPU survives a failing case, a missing package and its time limit, and keeps what it has."""

import json
import sys
import time

import pytest
import torch

from benchmarks import lines, report, run_gpu

SOUND = """
import pytest
def test_good(record_property):
    info = {"provider": "medveil", "bytes": 8, "flops": 8}
    entry = {"group": "topk step 1x784 cuda", "name": "good", "extra_info": info}
    stats = {"rounds": 1, "median": 0.002, "iqr": 0, "min": 0.002, "max": 0.002}
    machine = {"gpu": "G", "cpu": "c", "capability": "", "threads": 1, "torch": "2", "triton": "3", "python": "3"}
    record_property("entry", entry | {"stats": stats, "machine_info": machine, "commit_info": {"id": "abc"}})
def test_wrong():
    assert 1 == 2, "not the reference's"
def test_skipped():
    pytest.skip("a CPU's size")
"""
FILES = {
    "sound": SOUND,
    "lacking": "import a_package_that_is_missing\ndef test_a(): pass",
    "hanging": "import time\ndef test_first(): pass\ndef test_second(): time.sleep(99)",
}


@pytest.fixture
def out(tmp_path, monkeypatch):
    files = {name: tmp_path / f"test_{name}.py" for name in FILES}
    for name, text in FILES.items():
        files[name].write_text(text)
    monkeypatch.setattr(
        run_gpu, "BENCHMARKS", {name: (str(file), "-p", "no:cacheprovider") for name, file in files.items()}
    )
    monkeypatch.setattr(run_gpu, "commands", lambda part, quick: [run_gpu.BENCHMARKS[part]])
    monkeypatch.setattr(run_gpu, "LEAST", 0.5)
    return tmp_path


def cases(out):
    return [(line["case"].split("::")[-1].split("/")[-1], line["outcome"]) for line in lines.read(out / "gpu.jsonl")]


def test_each_case_is_on_disk_whatever_became_of_the_others(out, capsys):
    assert run_gpu.run_parts(out, ["lacking", "sound"], time.monotonic() + 60, False) == 1
    sound = [("test_good", "passed"), ("test_wrong", "failed"), ("test_skipped", "skipped")]
    assert cases(out) == [("test_lacking.py", "failed"), *sound]
    said = capsys.readouterr().out
    assert "No module named 'a_package_that_is_missing'" in said and "not the reference's" in said
    page = (out / "gpu.md").read_text()
    assert "topk step 1x784 cuda" in page and "a_package_that_is_missing" in page.split("Without a result")[1]


def test_what_was_measured_before_the_time_was_up_stays(out, capsys):
    begun = time.monotonic()
    assert run_gpu.run_parts(out, ["hanging"], time.monotonic() + 8, False) == 1
    assert time.monotonic() - begun < 30
    assert cases(out) == [("test_first", "passed")]
    assert "hanging: 1 passed, 0 failed, 0 skipped" in (said := capsys.readouterr().out) and "its time was up" in said


def test_nothing_is_begun_without_time_and_the_call_says_so(out, capsys):
    assert run_gpu.run_parts(out, ["sound"], time.monotonic(), False) == 1
    assert "sound: not begun, no time left" in capsys.readouterr().out and not (out / "gpu.jsonl").exists()


def test_packages_brought_by_pythonpath_are_found_behind_our_own(out, monkeypatch):
    (out / "a_package_that_is_missing.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(out))
    assert run_gpu.run_parts(out, ["lacking"], time.monotonic() + 60, False) == 0


def test_parts_have_an_order_and_a_name(tmp_path, monkeypatch, capsys):
    assert run_gpu.PARTS[:2] == ("limits", "steps") and run_gpu.PARTS[-1] == "sanitizer"
    assert all(
        (run_gpu.ROOT / command[0]).exists() for part in run_gpu.PARTS for command in run_gpu.commands(part, True)
    )
    monkeypatch.setattr(sys, "argv", ["run_gpu.py", str(tmp_path), "topkk"])
    with pytest.raises(SystemExit, match="2"):
        run_gpu.main()
    assert "there is no part 'topkk'" in capsys.readouterr().err


def test_without_a_gpu_one_line_says_so_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run_gpu.py", str(tmp_path / "out")])
    assert run_gpu.main() == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_line_that_was_cut_is_left_out_and_two_machines_are_refused(tmp_path):
    table = tmp_path / "gpu.jsonl"
    entry = {"machine_info": {"gpu": "G"}, "commit_info": {}}
    text = "".join(json.dumps({"case": "a", "outcome": "passed", "entry": e}) + "\n" for e in (entry, entry))
    table.write_text(text + '{"case": "b", "outc')
    assert len(lines.results(table)["benchmarks"]) == 2
    table.write_text(text + json.dumps({"case": "c", "entry": {"machine_info": {"gpu": "H"}, "commit_info": {}}}))
    with pytest.raises(ValueError, match="2 machines"):
        report.main(table, tmp_path / "gpu.md")
