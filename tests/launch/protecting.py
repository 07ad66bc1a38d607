"""Protect jobs in processes that start fast: forked from a server that has imported everything."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_METHODS = [f"medveil.{method}.protector" for method in ("salm", "umed", "veil")]
# torch's optimisers import the last, when they are used.
_context.set_forkserver_preload(
    ["medveil.launch.protect.job", "medveil.launch.jobs.job", *_METHODS, "skimage.metrics", "torch._dynamo"]
)


def forkserver() -> ForkServerContext:
    """A context of multiprocessing whose processes start fast; its server runs."""
    # Started here, not in the midst of what blocks signals: its processes would block them too.
    ensure_running()
    return _context


def _command(argv: Sequence[str], output: Path, file_limit: int | None, cpu_seconds: float | None) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if cpu_seconds is not None:
        # Nobody handles SIGPROF: the process is gone at once, as with SIGKILL, however busy the machine is.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    from medveil.launch.cli import main

    code = main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    output.with_suffix(".cpu").write_text(str(time.process_time()))
    # Not sys.exit, which multiprocessing would print.
    os._exit(code)


def start(
    argv: Sequence[str], output: Path, file_limit: int | None = None, cpu_seconds: float | None = None
) -> ForkServerProcess:
    """``medveil ARGV`` in a new process that writes to the file ``output``.

    No file may grow beyond ``file_limit`` bytes, and after ``cpu_seconds`` of its own the process is killed.
    """
    process = _context.Process(target=_command, args=(list(argv), output, file_limit, cpu_seconds))
    process.start()
    return process


def finish(process: ForkServerProcess, seconds: float = 120) -> int:
    """The exit code, negative for a signal; fails if the process does not end in time."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the process was still at work after {seconds} s")
    return process.exitcode


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder`` by its relative name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
