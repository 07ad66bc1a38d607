"""What a sweep asks of SLURM, as a person says it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from medveil.config import Settings, build, setting
from medveil.errors import UserError

_OPTION = re.compile(r"--([A-Za-z][\w-]*)(?:\s*[=\s]\s*(.*))?")
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def minutes(value: Any) -> int:
    """A time limit as whole minutes: 90, "90", "1:30:00", "2-00:00:00" (days-hours:minutes:seconds) or "2-12"."""
    found = _TIME.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"{value!r} is not a time: give minutes, hours:minutes:seconds or days-hours:minutes:seconds")
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    # As sbatch reads it: the first number is hours after days or when there are three, else minutes.
    hours = days is not None or len(numbers) == 3
    units = (3600, 60, 1) if hours else (60, 1, 0)
    seconds = int(days or 0) * 86400 + sum(number * unit for number, unit in zip(numbers, units, strict=False))
    if seconds <= 0:
        raise ValueError(f"{value!r}: a time limit must be above zero")
    return -(-seconds // 60)


@dataclass(frozen=True)
class Slurm(Settings):
    """The ``slurm:`` mapping of a sweep."""

    partition: str | None = setting(None, "partition of the cluster", metavar="NAME")
    account: str | None = setting(None, "account that pays", metavar="NAME")
    qos: str | None = setting(None, "quality of service", metavar="NAME")
    nodes: int = setting(1, "nodes of one job", low=1)
    gpus_per_node: int = setting(0, "GPUs of a node; one process runs on each", low=0)
    tasks_per_node: int | None = setting(None, "processes of a node without GPUs", low=1)
    cpus_per_task: int | None = setting(None, "CPUs of one process; by default the sweep's threads", low=1)
    memory: str | None = setting(None, "memory of a node, such as 64G", metavar="SIZE")
    time: int | str = setting(60, "limit of one job, also as hours:minutes:seconds", unit="minutes")
    constraint: str | None = setting(None, "features that a node must have")
    max_parallel: int | None = setting(None, "jobs at a time", low=1)
    warning_seconds: int = setting(90, "before its time limit a job is told to save its state", unit="seconds", low=1)
    requeues: int = setting(20, "how often a job that was told to stop goes back to the queue", low=0)
    sbatch: list[str] = setting([], "another option, as --sbatch=--exclusive; may be repeated", metavar="--OPTION")
    setup: list[str] = setting([], "a shell line before Python, such as a module load; may be repeated", metavar="LINE")
    audits: dict[str, Any] = setting({}, "other values of these for audits alone")

    def __post_init__(self) -> None:
        super().__post_init__()
        minutes(self.time)
        for line in self.sbatch:
            _option(line)
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise ValueError("tasks_per_node is for nodes without GPUs: with them there is one process per GPU")

    def for_audits(self, what: str) -> "Slurm":
        """These settings with ``audits`` over them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        # A sweep has one width and one number of second chances.
        for name in ("audits", "max_parallel", "requeues"):
            if name in self.audits:
                raise UserError(f"{what}: audits cannot have a {name} of their own")
        return replace(build(Slurm, {**values, **self.audits}, f"{what}: audits"), audits={})

    def parameters(self, name: str, threads: int, after: Sequence[str], folder: Path) -> dict[str, Any]:
        """What submitit is told, for jobs called ``name`` that wait until the jobs ``after`` have ended."""
        cpus = self.cpus_per_task or threads
        optional = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gpus_per_node": self.gpus_per_node or None,
            "mem": self.memory,
            "constraint": self.constraint,
            "dependency": f"afterany:{':'.join(after)}" if after else None,
            "array_parallelism": self.max_parallel,
        }
        return {
            "job_name": name,
            "time": minutes(self.time),
            "nodes": self.nodes,
            "ntasks_per_node": self.gpus_per_node or self.tasks_per_node or 1,
            "cpus_per_task": cpus,
            **{key: value for key, value in optional.items() if value is not None},
            "signal_delay_s": self.warning_seconds,
            "wckey": None,
            "additional_parameters": {"requeue": True, **dict(map(_option, self.sbatch))},
            # srun no longer takes cpus-per-task from sbatch, and by default lets the others wait for a dead process.
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
            "setup": ["umask 077", *self.setup],
            # The batch shell outlives its processes: when they are killed, this is what still tells of it.
            "teardown": [
                "ended=$?",
                f'echo "$ended ${{SLURM_RESTART_COUNT:-0}}" > {shlex.quote(str(folder))}/'
                '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.exit"',
                'exit "$ended"',
            ],
        }


def settings(values: Mapping[str, Any], flags: Mapping[str, Any], what: str) -> Slurm:
    """The settings in a sweep's ``slurm:`` mapping with those ``flags`` on the command line over them."""
    slurm = build(Slurm, {**values, **flags}, f"{what}: slurm")
    slurm.for_audits(f"{what}: slurm")
    return slurm


def _option(line: str) -> tuple[str, str | bool]:
    """'#SBATCH --mail-type=END' as a name and a value; True where there is none. Raises ValueError for another line."""
    found = _OPTION.fullmatch(line.removeprefix("#SBATCH").strip())
    if found is None:
        raise ValueError(f"{line!r} is not an sbatch option: it must begin with --, such as --exclusive")
    try:
        value = " ".join(shlex.split(found[2] or ""))
    except ValueError:
        raise ValueError(f"{line!r} has a quote that is not closed") from None
    return found[1], value or True
