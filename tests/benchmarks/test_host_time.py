"""The path that ``benchmarks.host_time`` times: launches that are found once are the launches that Triton makes."""

import pytest
import torch
from torch import Tensor

from medveil.kernels import cdc_conv2d
from medveil.kernels.cdc import ops

triton = pytest.importorskip("triton")
LAUNCHED = []  # the source that was compiled, and the arguments; a compiled kernel keeps its launcher


@pytest.fixture
def launched(monkeypatch):
    from benchmarks.host_time import stand_in  # needs Triton

    driver = stand_in()
    driver.launcher_cls = lambda source, metadata: lambda *arguments: LAUNCHED.append((source, arguments))
    triton.runtime.driver.set_active(driver)
    monkeypatch.setattr(ops, "DIRECT", {"cpu"})
    LAUNCHED.clear()
    yield LAUNCHED
    triton.runtime.driver.set_active(None)


def both_ways(x, v, c):
    torch.autograd.grad(cdc_conv2d(x, v, c).sum(), (v, c))


def told(launches):
    """The grid and the kernel's own arguments of each launch."""
    return [
        (grid, [(a.shape, a.stride(), a.dtype) if isinstance(a, Tensor) else a for a in arguments])
        for _, (*grid, _stream, _function, _packed, _metadata, _enter, _exit), arguments in (
            (source, given[:9], given[9:]) for source, given in launches
        )
    ]


def test_a_later_call_launches_what_triton_launched_for_the_first(launched):
    x, v, c = torch.randn(2, 8, 5, 5), *torch.randn(2, 16, 8, 3, 3, requires_grad=True).unbind()
    both_ways(x, v, c)
    first, launched[:] = list(launched), []
    both_ways(x, v, c)
    assert [source.name for source, _ in first] == ["fold_kernel", "unfold_kernel"]
    assert told(launched) == told(first)
    assert all(given is wanted for given, wanted in zip(launched[0][1][9:11], (v, c), strict=True))


def test_a_tensor_that_begins_elsewhere_gets_a_kernel_of_its_own(launched):
    x, memory = torch.randn(2, 8, 5, 5), torch.randn(16 * 8 * 9 + 1)
    aligned, odd = (memory[first : first + 16 * 8 * 9].view(16, 8, 3, 3) for first in (0, 1))
    for v in (aligned, odd, aligned):
        cdc_conv2d(x, v, aligned)
    assert [bool(source.attrs.get((0,))) for source, _ in launched] == [True, False, True], [
        s.attrs for s, _ in launched
    ]
