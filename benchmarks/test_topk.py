"""``topk_masked_step``, k = 10%, fp32. Bytes: gradient, noise and image read, noise written: 16 per element.

The rivals also move what ties with the k-th element, as one would write it; ours never does.

Operations: |g|, two comparisons to rank it, sign, product, sum and the two clips' four: 10 per element.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.common import batch_for, copy_of
from medveil.kernels import topk_masked_step
from medveil.kernels.topk import reference
from medveil.kernels.topk.reference import count

STEP, RADIUS, FRACTION = 1.6 / 255, 8 / 255, 0.1
ROWS = {(1, 28, 28): 1024, (3, 28, 28): 512, (3, 224, 224): 8}  # a sample, and how many of them a CPU copes with


def eager(select: Callable[[Tensor, int], Tensor], noise: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    size = grad.abs().flatten(1)
    mask = (size >= select(size, count(FRACTION, size.shape[1]))).view_as(grad)
    moved = (noise - STEP * torch.sign(mask * grad)).clamp(-RADIUS, RADIUS)
    return (x + moved).clamp(0, 1) - x


def by_kthvalue(size: Tensor, k: int) -> Tensor:
    return size.kthvalue(size.shape[1] - k + 1, dim=1, keepdim=True).values


def by_topk(size: Tensor, k: int) -> Tensor:
    return size.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)


@pytest.mark.parametrize("provider", ["medveil", "kthvalue", "topk", "compile", "copy"])
@pytest.mark.parametrize("sample", ROWS, ids=lambda sample: "x".join(map(str, sample)))
def test_step(measure, device, large, sample, provider):
    if provider == "compile" and not measure.with_compile:
        pytest.skip("--with-compile")
    elements = torch.Size(sample).numel()
    batch = batch_for(16 * elements, large, ROWS[sample])
    x = torch.rand(batch, *sample, device=device)
    noise = (torch.rand_like(x) * 2 - 1) * RADIUS
    grad = torch.randn_like(x) ** 3 * 1e-4
    bytes_ = 16 * x.numel()
    group = f"topk step {batch}x{elements} {device.type}"
    if provider == "copy":
        measure(provider, copy_of(bytes_, device), group, bytes_=bytes_)
        return
    compiled = torch.compile(eager) if provider == "compile" else eager
    runs = {
        "medveil": lambda: topk_masked_step(noise, grad, x, FRACTION, STEP, RADIUS),
        "kthvalue": lambda: eager(by_kthvalue, noise, grad, x),
        "topk": lambda: eager(by_topk, noise, grad, x),
        "compile": lambda: compiled(by_topk, noise, grad, x),
    }
    exact = reference.topk_masked_step(noise, grad, x, FRACTION, STEP, RADIUS, None, "element", "abs")
    other = ((runs[provider]() - exact).abs() > 1e-6).double().mean().item()
    assert other <= (0 if provider == "medveil" else 1e-4), f"{other:.2%} of the elements are not the reference's"
    measure(provider, runs[provider], group, bytes_=bytes_, flops=10 * x.numel())
