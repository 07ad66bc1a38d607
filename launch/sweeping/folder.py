"""Where the things of one sweep lie."""

from dataclasses import dataclass
from pathlib import Path

from medveil.launch.jobs.submissions import Submissions
from medveil.launch.reading import read_own
from medveil.launch.running.files import make_private


@dataclass(frozen=True)
class SweepFolder:
    """The private folder of a sweep. ``cache``: sets larger than memory, unpacked once for all of its jobs."""

    path: Path

    @property
    def definition(self) -> Path:
        """The sweep itself, as it was last run."""
        return self.path / "sweep.json"

    @property
    def deeper(self) -> Path:
        """The keys of the trainings that are done with more seeds too."""
        return self.path / "deeper.json"

    def deepened(self) -> list[str]:
        """What :attr:`deeper` holds."""
        return read_own(list[str], self.deeper) or []

    @property
    def releases(self) -> Path:
        return self.path / "releases"

    @property
    def audits(self) -> Path:
        return self.path / "audits"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def cells(self) -> Path:
        return self.path / "cells"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def page(self) -> Path:
        return self.report / "report.html"

    @property
    def submissions(self) -> Submissions:
        return Submissions(self.path / "slurm")

    def make(self) -> None:
        """Make the private folders. Raises UserError when they cannot be made there."""
        for path in (self.path, self.releases, self.audits, self.jobs, self.cells, self.submissions.path):
            make_private(path)
