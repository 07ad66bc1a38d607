"""One SLURM for all tests, and sweeps on it."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from medveil.launch.cli import main
from medveil.launch.jobs.status import Standing, standings
from medveil.launch.jobs.submissions import Submissions
from medveil.launch.sweeping.folder import SweepFolder
from medveil.launch.sweeping.plan import SweepPlan
from medveil.launch.sweeping.run import prepared
from tests.slurm.one_machine import Slurm, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Slurm]:
    if (lacking := missing()) is not None:
        pytest.skip(lacking)
    # Not pytest's own folder: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="medveil-slurm-") as folder, Slurm(Path(folder)) as slurm:
        yield slurm


@pytest.fixture
def slurm(cluster: Slurm) -> Iterator[Slurm]:
    """The cluster with all its nodes, and nothing left of the test in its queue."""
    cluster.reset()
    yield cluster
    cluster.reset()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Sweeping:
    """A sweep of generated images in a folder of its own."""

    def __init__(self, folder: Path, name: str, text: str) -> None:
        self.file = folder / f"{name}.yaml"
        self.runs = folder / "runs"
        self.folder = self.runs / name
        self.file.write_text(f"name: {name}\ndevice: cpu\nthreads: 1\nworkers: 0\n{text}")

    def run(self, *options: str) -> int:
        return main(["sweep", str(self.file), "--runs", str(self.runs), *options])

    def submit(self, *options: str) -> int:
        return self.run("--cluster", "slurm", *options)

    @property
    def plan(self) -> SweepPlan:
        return prepared(SweepFolder(self.folder))[1]

    def job_id(self, title: str) -> str:
        """The SLURM job of the protect job whose title holds ``title``."""
        return Submissions(self.folder / "slurm").ids()[self.key(title)]

    def key(self, title: str) -> str:
        (key,) = [job.key for job in self.plan.jobs if title in job.title and job.key.startswith("protect")]
        return key

    def standing(self, title: str) -> Standing:
        """How the protect job stands."""
        return standings(self.plan.jobs, Submissions(self.folder / "slurm"))[self.key(title)]

    def log(self, title: str) -> str:
        """The protect job's log, of all its starts."""
        return (self.folder / "jobs" / f"{self.key(title)}.log").read_text()

    def release(self, title: str) -> Path:
        return self.folder / "releases" / self.key(title)

    def run_log(self, title: str) -> str:
        """What the protect job's private run says; empty before it began."""
        logs = list((self.folder / "releases").glob(f".{self.key(title)}.run/*/log.txt"))
        return logs[0].read_text() if logs else ""

    def steps_saved(self, title: str) -> int:
        """The step of the protect job's newest checkpoint; 0 if there is none."""
        saved = (self.folder / "releases").glob(f".{self.key(title)}.run/*/checkpoints/step-*.pt")
        return max((int(path.name.split(".")[0].removeprefix("step-")) for path in saved), default=0)

    def metrics(self) -> list[str]:
        """The lines of results.csv up to the SSIM, without what took how long."""
        lines = (self.folder / "report" / "results.csv").read_text().splitlines()
        return [",".join(line.split(",")[:11]) for line in lines]


def digests(release: Path) -> dict[str, str]:
    """The sha256 of every file of a release."""
    files = [path for path in sorted(release.rglob("*")) if path.is_file()]
    assert files
    return {str(path.relative_to(release)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
