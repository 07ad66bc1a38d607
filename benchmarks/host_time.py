"""The host's time for ``cdc_conv2d`` forward and backward beyond a plain convolution's, without a GPU:
``python -m benchmarks.host_time``.

The code of the CUDA path runs on CPU tensors so small that computing them costs next to nothing: autograd, this
project's plans, and Triton's launch of kernels that were compiled for sm_90 beforehand. Only the last step of a launch,
which hands the arguments to the driver, a few microseconds, is left out. The plain convolution runs on the same
tensors. Both are timed in turns; the least and the median of many times are printed, in microseconds of CPU time.
"""

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import triton
from triton.backends.compiler import GPUTarget

from medveil.kernels import cdc_conv2d
from medveil.kernels.cdc import ops

TURNS, CALLS = 200, 10


def stand_in() -> SimpleNamespace:
    """A driver for Triton where there is none: kernels are loaded from nowhere, and their last call does nothing. Its
    device has a number that no GPU has, so that Triton keeps its kernels apart."""
    return SimpleNamespace(
        launcher_cls=lambda source, metadata: lambda *arguments: None,
        get_current_device=lambda: -1,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        utils=SimpleNamespace(
            load_binary=lambda name, binary, shared, device: (0, 0, 0, 0, 1024),
            unload_module=lambda module: None,
            get_device_properties=lambda device: {"max_shared_mem": 232448},
        ),
    )


def _microseconds(run: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(CALLS):
        run()
    return (time.process_time() - begun) / CALLS * 1e6


def measured(channels: int) -> tuple[list[float], list[float]]:
    """The microseconds of each turn for a plain convolution and for ``cdc_conv2d`` from ``channels`` to 64 channels,
    both with the gradient of what is trained (and, behind a stem, of x)."""
    x = torch.randn(1, channels, 4, 4).to(memory_format=torch.channels_last).requires_grad_(channels > 3)
    weights = torch.randn(3, 64, 3, 3, channels).permute(0, 1, 4, 2, 3)  # each in channels_last, as UMed has them
    v, c, w = (weight.clone().requires_grad_() for weight in weights)
    given = [x] if channels > 3 else []
    grad = torch.ones_like(F.conv2d(x, w, padding=1))

    def plain() -> object:
        return torch.autograd.grad(F.conv2d(x, w, padding=1), [*given, w], grad)

    def ours() -> object:
        return torch.autograd.grad(cdc_conv2d(x, v, c), [*given, v, c], grad)

    for run in (plain, ours):
        for _ in range(20):
            run()
    turns = [(_microseconds(plain), _microseconds(ours)) for _ in range(TURNS)]
    first, second = zip(*turns, strict=True)
    return list(first), list(second)


def main() -> None:
    torch.set_flush_denormal(True)  # what was never computed may hold such numbers, which are slow
    triton.runtime.driver.set_active(stand_in())
    ops.DIRECT.add("cpu")
    for channels in (3, 16):
        plain, ours = measured(channels)
        for what, of in (("least", min), ("median", statistics.median)):
            print(
                f"{channels:3d} channels, {what}: plain {of(plain):.0f} us, cdc_conv2d {of(ours):.0f} us,"
                f" beyond it {of(ours) - of(plain):.0f} us"
            )


if __name__ == "__main__":
    main()
