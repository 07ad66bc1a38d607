"""The sbatch text that asks SLURM for the jobs of a sweep."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medveil.launch.jobs.job import Job
from medveil.launch.jobs.slurm import Slurm

MAX_ARRAY = 1000
"""Jobs in one array: SLURM's own default limit, which sites raise but seldom lower."""


def arrays(jobs: Sequence[Job], in_line: bool) -> list[list[Job]]:
    """Jobs that go as one array each, in the order of submission.

    Those that need the same jobs go together, so that each audit begins when its own release is there. ``in_line``:
    one array after the other, because SLURM limits how many run at a time only within an array.
    """
    alike: dict[Any, list[Job]] = {}
    for job in jobs:
        alike.setdefault(bool(job.needs) if in_line else job.needs, []).append(job)
    return [group[first : first + MAX_ARRAY] for group in alike.values() for first in range(0, len(group), MAX_ARRAY)]


def array_parameters(
    slurm: Slurm, name: str, threads: int, chunk: Sequence[Job], after: Sequence[str], folder: Path
) -> dict[str, Any]:
    """What submitit is told for one of :func:`arrays`."""
    audits = bool(chunk[0].needs)
    wanted = slurm.for_audits(name) if audits else slurm
    return wanted.parameters(f"{name}-{'audit' if audits else 'protect'}", threads, after, folder)


def sbatch_text(parameters: Mapping[str, Any], count: int, folder: Path) -> str:
    """The file that submitit gives to sbatch for ``count`` jobs whose pickles and logs lie in ``folder``."""
    from submitit.slurm.slurm import SlurmExecutor

    with tempfile.TemporaryDirectory(prefix="medveil-") as place, _no_slurm(Path(place)):
        jobs = Path(place) / "jobs"
        executor = SlurmExecutor(jobs)
        executor.update_parameters(**parameters)
        with executor.batch():
            handles = [executor.submit(print) for _ in range(count)]
        text: str = handles[0].paths.submission_file.read_text()
    return text.replace(str(jobs), str(folder))


@contextmanager
def _no_slurm(place: Path) -> Iterator[None]:
    """Within, submitit submits to commands in ``place`` that do nothing: it cannot write the file alone."""
    for name, line in (("srun", "exit 1"), ("sbatch", "echo Submitted batch job 1")):
        (place / name).write_text(f"#!/bin/sh\n{line}\n")
        (place / name).chmod(0o700)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{place}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def preview(slurm: Slurm, name: str, threads: int, jobs: Sequence[Job], folder: Path) -> str:
    """The sbatch text of all jobs as it would be submitted; job ids, which SLURM gives, stand as ARRAY1, ARRAY2, ..."""
    texts, ids = [], dict[str, str]()
    in_line, previous = slurm.max_parallel is not None, list[str]()
    for number, chunk in enumerate(arrays(jobs, in_line), start=1):
        array = f"ARRAY{number}"
        after = previous if in_line else dependencies(chunk[0], ids)
        parameters = array_parameters(slurm, name, threads, chunk, after, folder)
        titles = "".join(f"\n# {place}: {job.title}" for place, job in enumerate(chunk))
        texts.append(f"# {array}{titles}\n{sbatch_text(parameters, len(chunk), folder)}")
        ids |= {job.key: f"{array}_{place}" if len(chunk) > 1 else array for place, job in enumerate(chunk)}
        previous = [array]
    return "\n".join(texts)


def dependencies(job: Job, ids: Mapping[str, str]) -> list[str]:
    """The ids, among ``ids``, of the jobs that ``job`` waits for."""
    return [ids[need] for need in job.needs if need in ids]
