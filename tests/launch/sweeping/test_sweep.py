"""A sweep on this machine: what fails is told and stops nothing else, what is done is not done again."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medveil.launch.cli import main
from medveil.launch.errors import Interrupted
from medveil.launch.exploiters.attacks.names import WORDS
from medveil.launch.jobs.job import Job
from medveil.launch.jobs.local import run_inline, run_side_by_side
from medveil.launch.results import CellResult
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.grid import read_sweep
from medveil.launch.sweeping.plan import plan
from medveil.launch.sweeping.run import prepare
from medveil.launch.sweeping.run import run as run_sweep
from tests.launch import protecting

SWEEP = """
name: tiny
grid:
  - data: "phantom:cls:12:16"
    protectors:
      - random
      - {method: salm, steps: 2, pgd_steps: 1, transforms: 1, width: 2, mode: strict}
      - umed
    exploiters:
      - {model: resnet18, preset: cpu, width: 2, iterations: 2}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    return tmp_path


def run(folder, *flags):
    return main(["sweep", str(folder / "tiny.yaml"), "--runs", str(folder / "runs"), "--workers", "0", *flags])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The sweep, run once."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "tiny.yaml").write_text(SWEEP)
    assert run(folder) == 1
    return folder


def test_a_failed_cell_is_reported_and_the_rest_goes_on(swept):
    report = swept / "runs" / "tiny" / "report"
    rows = list(csv.DictReader((report / "results.csv").open()))
    names = "data protector options exploiter attack seed metric clean protected psnr ssim seconds status"
    assert " ".join(rows[0]) == names
    done = {row["protector"] for row in rows if row["status"] == "done"}
    failed = {row["protector"]: row for row in rows if row["status"] != "done"}
    assert done == {"random", "salm"}
    assert set(failed) == {"umed"}
    assert failed["umed"]["status"].startswith("failed: ") and "umed cannot protect" in failed["umed"]["status"]
    assert failed["umed"]["protected"] == ""
    accuracy = next(row for row in rows if row["protector"] == "salm" and row["metric"] == "accuracy")
    assert 0 <= float(accuracy["clean"]) <= 100 and 0 <= float(accuracy["protected"]) <= 100
    assert float(accuracy["psnr"]) > 36
    assert "original images" in (report / "report.html").read_text()
    assert oct((swept / "runs" / "tiny").stat().st_mode & 0o777) == "0o700"


def test_what_is_done_is_not_done_again(swept):
    jobs = swept / "runs" / "tiny"
    kept = {path: path.stat().st_mtime_ns for path in jobs.rglob("done.json")}
    assert len(kept) == 2 + 3
    table = (jobs / "report" / "results.csv").read_text()
    run(swept)
    assert {path: path.stat().st_mtime_ns for path in jobs.rglob("done.json")} == kept
    assert (jobs / "report" / "results.csv").read_text() == table


def test_the_worst_attacks_of_a_word_get_more_seeds(tmp_path, monkeypatch, capsys):
    """On the release that there is, and once: a sweep that is started again finds them done."""
    monkeypatch.setitem(WORDS, "standard", ["none", "blur", "bits3", "mean", "pretrained"])
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\ngrid:\n  - {data: 'phantom:cls:12:16', protectors: [random], attacks: standard, "
        "exploiters: [{model: resnet18, width: 2, iterations: 2}]}\n"
    )
    assert run(tmp_path) == 0
    out = tmp_path / "runs" / "tiny"
    cells = [CellResult.load(path) for path in (out / "cells").rglob("result.json")]
    reached = {cell.attack: cell.protected.last["accuracy"] for cell in cells if not cell.seed and cell.protected}
    again = {attack: sorted(cell.seed for cell in cells if cell.attack == attack and cell.seed) for attack in reached}
    worst = {attack for attack, seeds in again.items() if seeds == [1, 2]}
    assert len(worst) == 3 and sum(map(len, again.values())) == 6
    assert min(reached[attack] for attack in worst) >= max(reached[attack] for attack in set(reached) - worst)
    assert len(list((out / "releases").glob("*/manifest.json"))) == 1
    assert {cell.attack for cell in cells if cell.seed and cell.clean} <= {"none"}
    assert "the worst 3 attacks on each release with 2 more seeds" in capsys.readouterr().out
    # An attack that is out of reach is no failure here either, and each training is called by its own seed.
    assert main(["sweep", "status", str(out)]) == 0
    said = capsys.readouterr().out
    assert {f"seed {seed}" for seed in (0, 1, 2)} <= {line[-6:] for line in said.splitlines()}
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert run(tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("done.json")} == kept


@pytest.mark.parametrize(("gpu", "workers"), [(False, 3), (True, 1)])
def test_as_many_jobs_run_as_there_are_cores_or_one_on_a_gpu(folder, monkeypatch, gpu, workers):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 2, 3})
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    told = []
    monkeypatch.setattr("medveil.launch.sweeping.run.run_side_by_side", lambda jobs, count, listen: told.append(count))
    run_sweep(read_sweep(folder / "tiny.yaml"), SweepFolder(folder / "runs" / "tiny"))
    assert told == [workers]


def test_each_release_is_audited_before_the_next_is_made(folder):
    """So the first cells are done first; training on originals waits for the releases that tell which those are."""
    planned = plan(read_sweep(folder / "tiny.yaml"), SweepFolder(folder / "runs" / "tiny"))
    assert [" ".join(job.title.split()[:3:2]) for job in planned.jobs] == [
        "protect random",
        "audit random",
        "protect salm",
        "audit salm",
        "protect umed",
        "audit clean",
        "audit umed",
    ]
    before: set[str] = set()
    for job in planned.jobs:
        assert before >= set(job.needs)
        before.add(job.key)


def test_a_worker_that_is_killed_fails_its_own_job_alone(folder, monkeypatch):
    # Forked from a server, not started anew: each worker would import torch for seconds.
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: protecting.forkserver())
    sweep = read_sweep(folder / "tiny.yaml")
    planned = prepare(sweep, SweepFolder(folder / "runs" / "tiny"))
    other, victim = (job for job in planned.jobs[:3] if job.title.startswith("protect"))
    ended = {}

    def listen(job, record):
        ended[job.key] = record.state

    lethal = Job(victim.key, victim.title, Lethal(), victim.folder)
    run_side_by_side([lethal, other], 1, listen)
    assert ended == {victim.key: "failed", other.key: "done"}
    assert victim.read().state == "failed"


class Lethal:
    """Work whose process dies when the work is unpacked there."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_sweep_in_one_process_that_is_stopped_leaves_the_rest(folder, monkeypatch):
    planned = prepare(read_sweep(folder / "tiny.yaml"), SweepFolder(folder / "runs" / "tiny"))
    monkeypatch.setattr("medveil.launch.jobs.job.run_protect", interrupted)
    ended = {}
    run_inline(planned.jobs, lambda job, record: ended.update({job.key: record.state}))
    assert list(ended.values()) == ["interrupted"]


def interrupted(work):
    raise Interrupted(signal.SIGTERM, "at step 1 of 2")


def test_processes_of_torchrun_do_the_jobs_of_a_sweep_together(folder):
    # Two jobs at least: a second meeting of the same processes must not take the first for its own.
    without_salm = [line for line in SWEEP.splitlines() if "salm" not in line]
    (folder / "tiny.yaml").write_text("\n".join(without_salm))
    command = "torch.distributed.run --standalone --nproc-per-node 2 launch/sweep.py"
    told = ["--runs", str(folder / "runs"), "--device", "cpu"]
    ended = subprocess.run(
        [sys.executable, "-m", *command.split(), str(folder / "tiny.yaml"), *told],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    report = folder / "runs" / "tiny" / "report"
    rows = list(csv.DictReader((report / "results.csv").open()))
    assert {row["protector"] for row in rows if row["status"] == "done"} == {"random"}, ended.stderr[-3000:]
    # One cell of this sweep fails for a reason of its own; every process says so.
    assert "1 of 2 cells are not done" in ended.stderr


ORPHANED = """
name: orphaned
grid:
  - data: "phantom:cls:40:16"
    protectors:
      - {method: salm, steps: 100000, pgd_steps: 1, transforms: 1, width: 2}
"""


def test_workers_of_a_killed_sweep_save_and_end(tmp_path):
    (tmp_path / "orphaned.yaml").write_text(ORPHANED)
    told = ["--runs", str(tmp_path / "runs"), "--device", "cpu", "--workers", "1"]
    sweep = protecting.start(["sweep", str(tmp_path / "orphaned.yaml"), *told], tmp_path / "output")
    jobs = tmp_path / "runs" / "orphaned" / "jobs"
    try:
        within(900, lambda: list((tmp_path / "runs").rglob("metrics.jsonl")), "the first steps")
        (attempt,) = jobs.glob("*.attempt.json")
        worker = json.loads(attempt.read_text())["pid"]
    finally:
        sweep.kill()
        sweep.join()
    within(900, lambda: not Path(f"/proc/{worker}").exists(), "the worker's end")
    (record,) = (path for path in jobs.glob("*.json") if path != attempt)
    assert json.loads(record.read_text())["state"] == "interrupted"


def test_a_worker_of_a_sweep_that_is_killed_while_it_starts_ends_too(tmp_path):
    (tmp_path / "orphaned.yaml").write_text(ORPHANED)
    told = ["--runs", str(tmp_path / "runs"), "--device", "cpu", "--workers", "1"]
    sweep = protecting.start(["sweep", str(tmp_path / "orphaned.yaml"), *told], tmp_path / "output")
    try:
        within(300, lambda: workers_of(sweep.pid), "the worker")
        (worker,) = workers_of(sweep.pid)
    finally:
        sweep.kill()
        sweep.join()
    within(300, lambda: not worker.exists(), "the worker's end")


def workers_of(pid):
    """The folders below /proc of the spawned processes of ``pid``."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        folder
        for child in children
        if b"spawn_main" in (folder := Path("/proc", child)).joinpath("cmdline").read_bytes()
    ]


def within(seconds, condition, what):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what} did not come within {seconds} s"
        time.sleep(0.2)
