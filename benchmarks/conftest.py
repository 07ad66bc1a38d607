"""Options, devices and the synchronising timer of the benchmarks: ``pytest benchmarks [--with-compile] [--large]``."""

import platform
import time
from typing import Any

import pytest
import torch

from benchmarks import common

DEVICES = ["cuda"] if torch.cuda.is_available() else ["cpu"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("medveil")
    group.addoption("--with-compile", action="store_true", help="torch.compile of the naive forms as one more rival")
    group.addoption("--large", action="store_true", help="batches of at least 1 GB (GPU)")


def synced() -> float:
    """The time when everything queued on the GPU is done; without one, the CPU time of this process.

    CPU time, summed over threads, is what a busy machine leaves comparable: quote ratios, and use one thread.
    """
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    torch.manual_seed(0)
    return torch.device(request.param)


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> common.Measure:
    benchmark._timer = synced
    return common.Measure(benchmark, bool(request.config.getoption("--with-compile")))


@pytest.fixture
def large(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--large"))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What the numbers depend on, and nothing that names the machine."""
    machine_info.clear()
    machine_info |= {
        "cpu": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "triton": common.triton_version(),
        "python": platform.python_version(),
    }


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    for entry in output_json["benchmarks"]:
        entry["stats"].pop("data", None)
