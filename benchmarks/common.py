"""What every benchmark does: check a provider against the reference, then time it.

The provider is every benchmark's first parameter, which varies fastest: what is compared is measured one right after
the other, as machines drift.
"""

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import torch
from pytest_benchmark.utils import get_commit_info
from torch import Tensor

from benchmarks.lines import ENTRY

STATISTICS = ("rounds", "median", "iqr", "min", "max")  # the others mean nothing of few rounds


def triton_version() -> str | None:
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def machine_info() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names the machine."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "triton": triton_version(),
        "python": platform.python_version(),
    }


class Measure:
    """Times one provider of one group. ``bytes_`` and ``flops`` are what the operation needs, not what a provider
    does."""

    def __init__(self, node: pytest.Item, benchmark: Any, with_compile: bool) -> None:
        self.node = node
        self.benchmark = benchmark
        self.with_compile = with_compile

    def __call__(
        self,
        provider: str,
        run: Callable[[], Any],
        group: str,
        *,
        bytes_: int = 0,
        flops: int = 0,
        expected: Callable[[], Any] | None = None,
        tolerance: float = 1e-5,
        rounds: int = 15,
        warmups: int = 2,
    ) -> None:
        if expected is not None:  # the gate: a wrong result is never timed
            torch.testing.assert_close(run(), expected(), rtol=tolerance, atol=tolerance, check_stride=False)
        self.benchmark.group = group
        self.benchmark.extra_info |= {"provider": provider, "bytes": bytes_, "flops": flops}
        if torch.cuda.is_available():
            from triton.testing import do_bench

            self.benchmark.extra_info["gpu_median_ms"] = do_bench(run, return_mode="median")
        self.benchmark.pedantic(run, rounds=rounds, warmup_rounds=warmups)
        if self.benchmark.stats is not None:  # None where timing is disabled
            self.node.user_properties.append((ENTRY, self._entry()))

    def _entry(self) -> dict[str, Any]:
        """As pytest-benchmark's JSON has it, and on which machine and commit."""
        of = self.benchmark
        stats = {name: getattr(of.stats.stats, name) for name in STATISTICS}
        about = {"machine_info": machine_info(), "commit_info": {"id": get_commit_info().get("id", "unknown")}}
        return {"group": of.group, "name": of.name, "extra_info": of.extra_info, "stats": stats, **about}


def copy_of(bytes_: int, device: torch.device) -> Callable[[], Tensor]:
    """A copy that reads and writes ``bytes_`` in all: the machine's own limit for that much traffic."""
    source = torch.randint(0, 255, (bytes_ // 2,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def batch_for(bytes_per_sample: int, large: bool, otherwise: int) -> int:
    """How many samples make 1 GB, or a batch that a CPU copes with."""
    return -(-(10**9) // bytes_per_sample) if large else otherwise
