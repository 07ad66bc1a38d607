"""What SLURM would be told, and how a sweep's cells stand by what is known of them: no cluster needed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medveil.errors import UserError
from medveil.launch.cli import main
from medveil.launch.jobs.job import Attempt, Job, Record
from medveil.launch.jobs.slurm import Slurm, minutes, settings
from medveil.launch.jobs.status import Standing, standings
from medveil.launch.jobs.submissions import Submissions
from medveil.launch.running.files import write_private
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.plan import SweepPlan
from medveil.launch.sweeping.run import prepared

SWEEP = """
name: grid
threads: 2
slurm:
  partition: gpu
  account: lab
  nodes: 2
  gpus_per_node: 8
  memory: 64G
  time: 1-02:00:00
  sbatch: ["--exclusive", "--mail-type=END"]
  setup: [module load cuda]
  audits: {nodes: 1, gpus_per_node: 1, time: 30}
grid:
  - data: phantom:cls:40:16
    protectors: [random, none]
    exploiters: [{model: resnet18, preset: cpu, width: 2, iterations: 2}]
"""

PROTECT = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=2
#SBATCH --error={folder}/%A_%a_0_log.err
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=grid-protect
#SBATCH --mail-type=END
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output={folder}/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=1560

# setup
umask 077
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output {folder}/%A_%a_%t_log.out --error {folder}/%A_%a_%t_log.err --kill-on-bad-exit=1 \
--cpus-per-task=2 """


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(SWEEP)
    return path


def test_dry_run_prints_cells_and_then_sbatch_text(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sweep.parent / "runs"
    assert main(["sweep", str(sweep), "--runs", str(runs), "--cluster", "slurm", "--dry-run"]) == 0
    cells, text = capsys.readouterr().out.split("\n\n", 1)
    assert [line.split("\t")[1] for line in cells.splitlines()] == ["random", "none"]
    protect, *audits = text.split("# ARRAY")[1:]
    titles, _, script = protect.partition("#!/bin/bash")
    assert titles == "1\n# 0: protect phantom:cls:40:16 random seed 0\n# 1: protect phantom:cls:40:16 none seed 0\n"
    assert ("#!/bin/bash" + script).startswith(PROTECT.format(folder=runs / "grid" / "slurm" / "001"))
    # Each audit waits for its own release, that of clean images for those that tell which samples it may train on.
    assert [audit.split("--dependency=")[1].split("\n")[0] for audit in audits] == [
        "afterany:ARRAY1_0",
        "afterany:ARRAY1_0:ARRAY1_1",
        "afterany:ARRAY1_1",
    ]
    for audit in audits:
        assert "#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=1\n" in audit and "#SBATCH --time=30\n" in audit
    assert not runs.exists()


def test_auto_is_local_where_no_sbatch_is_found(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["sweep", str(sweep), "--dry-run", "--cluster", "auto"]) == 0
    shown = capsys.readouterr().out
    assert "random" in shown
    assert "#SBATCH" not in shown


def test_a_limit_of_parallel_jobs_holds_for_the_whole_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(sweep), "--cluster", "slurm", "--dry-run", "--max-parallel", "1", "--setup", "hash"]) == 0
    _, protect, audit = capsys.readouterr().out.split("# ARRAY")
    assert "#SBATCH --array=0-1%1\n" in protect and "module load cuda\nhash\n" in protect
    assert "#SBATCH --array=0-2%1\n" in audit and "#SBATCH --dependency=afterany:ARRAY1\n" in audit


@pytest.mark.parametrize(
    ("value", "told"), [(90, 90), ("90", 90), ("1:30:00", 90), ("2:30", 3), ("1-12", 2160), ("2-00:00:30", 2881)]
)
def test_times_are_read_as_sbatch_does(value: int | str, told: int) -> None:
    assert minutes(value) == told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"partitions": "gpu"}, "no option 'partitions'"),
        ({"time": "soon"}, "is not a time"),
        ({"nodes": 0}, "nodes must be at least 1"),
        ({"gpus_per_node": 2, "tasks_per_node": 4}, "one process per GPU"),
        ({"sbatch": ["exclusive"]}, "must begin with --"),
        ({"sbatch": ["--comment='a"]}, "a quote that is not closed"),
        ({"audits": {"mem": "4G"}}, "no option 'mem'"),
        ({"audits": {"max_parallel": 2}}, "audits cannot have a max_parallel"),
    ],
)
def test_settings_that_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"sweep.yaml: slurm.*{message}"):
        settings(values, {}, "sweep.yaml")


def test_the_command_line_is_over_the_file() -> None:
    slurm = settings({"nodes": 2, "partition": "a"}, {"partition": "b", "time": "2:00:00"}, "sweep.yaml")
    assert slurm == Slurm(nodes=2, partition="b", time="2:00:00")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("#SBATCH --exclusive", {"exclusive": True}),
        ("--mail-type END,FAIL", {"mail-type": "END,FAIL"}),
        ("--comment=two words", {"comment": "two words"}),
        ("--comment='two words'", {"comment": "two words"}),
    ],
)
def test_lines_for_sbatch_are_passed_on_whole(line: str, told: dict[str, object], tmp_path: Path) -> None:
    assert Slurm(sbatch=[line]).parameters("a", 1, [], tmp_path)["additional_parameters"] == {"requeue": True, **told}


def test_other_folders_beside_submissions_are_passed_over(tmp_path: Path) -> None:
    for name in ("002", "003-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "submitted.json").write_text(f'{{"job": "{name}"}}')
    submissions = Submissions(tmp_path)
    assert submissions.ids() == {"job": "002"}
    assert submissions.next_folder() == tmp_path / "003"


def test_two_commands_do_not_submit_one_sweep_at_once(tmp_path: Path) -> None:
    """Each would have found nothing queued yet, and submitted every job."""
    again = "import sys; from pathlib import Path; from medveil.launch.jobs.submissions import Submissions\n"
    again += "with Submissions(Path(sys.argv[1])).alone(): pass"
    command = [sys.executable, "-c", again, str(tmp_path)]
    with Submissions(tmp_path).alone():
        assert "another command is submitting" in subprocess.run(command, capture_output=True, text=True).stderr
    assert subprocess.run(command).returncode == 0


class Told:
    """One submitted protect job, and commands on PATH that answer as SLURM would."""

    def __init__(self, folder: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        runs = folder / "runs" / "grid"
        (runs / "slurm" / "001").mkdir(parents=True)
        (runs / "jobs").mkdir()
        main(["sweep", str(sweep), "--runs", str(folder / "runs"), "--dry-run"])
        self.plan = _plan(sweep, folder / "runs")
        self.slurm = runs / "slurm"
        self.job: Job = self.plan.jobs[0]
        self.note = runs / "slurm" / "001" / "7_0.exit"
        (runs / "slurm" / "001" / "submitted.json").write_text(json.dumps({self.job.key: "7_0"}))
        self.commands = folder / "bin"
        self.commands.mkdir()
        monkeypatch.setenv("PATH", f"{self.commands}:{os.environ['PATH']}")
        self.answers("squeue", None)
        self.answers("sacct", None)

    def answers(self, command: str, text: str | None) -> None:
        path = self.commands / command
        path.write_text("#!/bin/sh\nexit 1\n" if text is None else f"#!/bin/sh\necho '{text}'\n")
        path.chmod(0o700)

    def begins(self, restart: int = 0, silent: float = 0.0) -> None:
        attempt = json.dumps({"name": f"7.{restart}", "host": "elsewhere", "pid": 1})
        write_private(self.job.attempt_path, attempt.encode())
        os.utime(self.job.attempt_path, times=(time.time() - silent,) * 2)

    def ends(self, state: str, reason: str, restart: int = 0) -> None:
        self.job.write(Record(state, reason, attempt=f"7.{restart}"))  # type: ignore[arg-type]

    @property
    def standing(self) -> Standing:
        return standings([self.job], Submissions(self.slurm))[self.job.key]


def _plan(sweep: Path, runs: Path) -> SweepPlan:
    from medveil.launch.sweeping.grid import read_sweep
    from medveil.launch.sweeping.run import prepare

    prepare(read_sweep(sweep), SweepFolder(runs / "grid"))
    return prepared(SweepFolder(runs / "grid"))[1]


@pytest.fixture
def told(tmp_path: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(tmp_path, sweep, monkeypatch)


def test_a_job_that_has_not_begun(told: Told) -> None:
    assert str(told.standing) == "waiting: SLURM does not answer"
    told.answers("squeue", "7_0|PENDING|Dependency")
    assert told.standing == Standing("waiting", "for its release", queued=True)
    told.answers("squeue", "7_0|FAILED|NonZeroExitCode")
    told.note.write_text("127 0\n")
    assert str(told.standing) == "failed: its process ended with exit code 127 and no record"
    told.answers("squeue", "")
    told.note.unlink()
    told.answers("sacct", "7_0|OUT_OF_MEMORY|0:125")
    assert str(told.standing) == "failed: out of memory: ask for more with --memory"
    told.answers("sacct", None)
    assert str(told.standing) == "waiting: just submitted"
    os.utime(told.slurm / "001" / "submitted.json", times=(0, 0))
    assert str(told.standing) == "failed: the queue does not know it, and it never began"


def test_a_job_that_runs(told: Told) -> None:
    told.begins()
    told.job.log_path.write_text("salm on phantom: step 2 of 9, loss 1\n")
    assert str(told.standing) == "running: step 2 of 9, loss 1"
    told.begins(silent=3600)
    assert str(told.standing).startswith("failed: ended without a word; no sign of life for 36")
    # A controller that answers knows better than a clock.
    told.answers("squeue", "7_0|RUNNING|None")
    assert told.standing == Standing("running", "step 2 of 9, loss 1", queued=True)


def test_a_job_that_ended_without_a_word(told: Told) -> None:
    told.begins()
    told.answers("squeue", "7_0|TIMEOUT|TimeLimit")
    assert str(told.standing) == "failed: the time limit was hit before it could save its state"
    told.answers("squeue", "7_0|CANCELLED|None")
    assert str(told.standing) == "stopped: cancelled"
    told.answers("squeue", "")
    told.answers("sacct", "7_0|NODE_FAIL|0:0")
    assert str(told.standing) == "failed: its node was lost"
    told.answers("sacct", None)
    told.note.write_text("137 0\n")
    assert str(told.standing).startswith("failed: its process was killed by signal 9")
    # That note is of an earlier start.
    told.begins(restart=1, silent=3600)
    assert str(told.standing).startswith("failed: ended without a word")


def test_a_job_that_was_told_to_stop(told: Told) -> None:
    told.begins()
    told.ends("interrupted", "stopped by SIGUSR2 at step 4 of 9, which is saved; requeued")
    assert told.standing.state == "preempted"
    told.answers("squeue", "7_0|PENDING|BeginTime")
    assert told.standing.state == "preempted" and told.standing.queued
    told.begins(restart=1)
    told.answers("squeue", "7_0|RUNNING|None")
    assert told.standing.state == "running"
    told.ends("interrupted", "stopped by SIGTERM at step 5 of 9, which is saved", restart=1)
    told.answers("squeue", "7_0|CANCELLED|None")
    assert str(told.standing) == "stopped: stopped by SIGTERM at step 5 of 9, which is saved"


def test_records_of_a_job(told: Told) -> None:
    told.begins()
    told.ends("failed", "no luck")
    told.answers("squeue", "7_0|FAILED|None")
    assert str(told.standing) == "failed: no luck"
    # SLURM gives a job of a lost node another chance, whatever its last breath said.
    told.answers("squeue", "7_0|PENDING|BeginTime")
    assert told.standing.state == "preempted"
    told.begins(restart=1)
    told.ends("done", "", restart=1)
    assert str(told.standing) == "done"
    assert told.job.attempt() == Attempt("7.1", "elsewhere", 1)
