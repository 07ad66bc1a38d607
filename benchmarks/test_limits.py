"""The machine's own limits, in the same run: a large copy and a large matrix product. Operations: 2 n^3."""

from typing import Any

import pytest
import torch

from benchmarks.common import copy_of


@pytest.mark.parametrize("limit", ["copy", "matmul fp32", "matmul bf16"])
def test_limits(measure: Any, device: torch.device, limit: str) -> None:
    cuda = device.type == "cuda"
    if limit == "copy":
        bytes_ = 2 * 10**9 if cuda else 2 * 10**8
        measure(limit, copy_of(bytes_, device), f"limits copy {device.type}", bytes_=bytes_)
        return
    side, dtype = (8192 if cuda else 1024), torch.float32 if limit.endswith("fp32") else torch.bfloat16
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    measure(limit, lambda: a @ b, f"limits {limit} {device.type}", flops=2 * side**3)
