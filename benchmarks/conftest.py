"""Options, devices and the synchronising timer of the benchmarks.

``pytest benchmarks [--passes N] [--with-compile] [--large]``
"""

import ctypes
import time
from typing import Any

import pytest
import torch

from benchmarks import common

DEVICES = ["cuda"] if torch.cuda.is_available() else ["cpu"]

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to 1 GB, as a GPU's allocator does.

    Otherwise whether a result lies in fresh pages, whose faults can cost more than the operator, depends on what else
    has been freed before: on the order of the benchmarks.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 1 << 30)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--passes", 1) < 1:  # no option where only a folder above was named
        raise pytest.UsageError(f"--passes must be 1 or more, not {config.getoption('--passes')}")
    _keep_freed_memory()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("medveil")
    group.addoption("--with-compile", action="store_true", help="torch.compile of the naive forms as one more rival")
    group.addoption("--passes", type=int, default=1, help="run everything so often: the page takes the median pass")
    group.addoption("--large", action="store_true", help="batches of at least 1 GB (GPU)")


def synced() -> float:
    """The time when everything queued on the GPU is done; without one and on one thread, the CPU time of this process.

    CPU time is what a busy machine leaves comparable. Summed over threads it would count those that wait.
    """
    if not torch.cuda.is_available():
        return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
    torch.cuda.synchronize()
    return time.perf_counter()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    torch.manual_seed(0)
    return torch.device(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pass_" in metafunc.fixturenames:
        # Of the session, so that each pass is complete before the next: what disturbs one leaves the others alone.
        passes = metafunc.config.getoption("--passes", 1)
        metafunc.parametrize("pass_", range(passes), ids=lambda number: f"pass {number + 1}", scope="session")


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any, pass_: int) -> common.Measure:
    benchmark._timer = synced
    return common.Measure(request.node, benchmark, bool(request.config.getoption("--with-compile")))


@pytest.fixture
def large(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--large"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info |= common.machine_info()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Leave out what no page shows."""
    for entry in output_json["benchmarks"]:
        entry["stats"] = {name: entry["stats"][name] for name in common.STATISTICS}
        for name in ("fullname", "params", "param", "options"):
            entry.pop(name, None)
