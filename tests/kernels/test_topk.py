import itertools
import math

import numpy as np
import pytest
import torch

from medveil.kernels import nan_seen, topk_grad_mask, topk_mask, topk_masked_step
from medveil.kernels.topk import bracket, reference

RANKS = ["abs", "signed"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8]


def sorted_selection(grad: torch.Tensor, fraction: float, rank: str) -> torch.Tensor:
    """The specification by a stable sort: the largest first, equals in order of their index."""
    flat = grad.flatten(1).cpu()
    values = flat.long() if not grad.is_floating_point() else flat.double()
    values = values.abs() if rank == "abs" else values
    k = math.floor(fraction * flat.shape[1] + 1e-9)
    order = values.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros(flat.shape, dtype=torch.bool).scatter(1, order, 1).view(grad.shape).to(grad.device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_count_and_lowest_index_under_ties(device, dtype, monkeypatch):
    grad = torch.randint(-3, 4, (7, 3, 5, 11), device=device).to(dtype)  # mostly ties
    grad[0] = 0
    grad[1, :, 2:] = 0
    for few in (0, 1 << 17):
        monkeypatch.setattr(bracket, "FEW", few)  # on the CPU: guess, or partition
        for rank, fraction in itertools.product(RANKS, (0.0, 0.1, 0.3, 0.999, 1.0)):
            mask = topk_mask(grad, fraction, rank=rank)
            assert torch.equal(mask, sorted_selection(grad, fraction, rank)), (few, rank, fraction)
            assert (mask.flatten(1).sum(1) == math.floor(fraction * 165 + 1e-9)).all(), (few, rank, fraction)


def test_random_rows(device):
    shapes = [(9, 784), (5, 3, 28, 28), (1, 1), (3, 1, 1, 1), (0, 3, 4, 4), (2, 0), (2, 40000), (130, 100)]
    for shape, rank, fraction in itertools.product(shapes, RANKS, (0.1, 1 / 3, 0.0001)):
        grad = torch.randn(shape, device=device) ** 3 * 1e-6
        selected = sorted_selection(grad, fraction, rank)
        assert torch.equal(topk_mask(grad, fraction, rank=rank), selected), (shape, rank, fraction)


def test_fractions_that_binary_cannot_hold():
    grad = torch.randn(1, 1000)
    for percent in range(101):
        assert topk_mask(grad, percent / 100).sum() == percent * 10


def test_infinities_and_signed_zeros(device):
    grad = torch.tensor([[1.0, -math.inf, 0.0, math.inf, -0.0, 2.0]], device=device)
    assert topk_mask(grad, 0.5).tolist() == [[False, True, False, True, False, True]]
    assert topk_mask(grad, 0.5, rank="signed").tolist() == [[True, False, False, True, False, True]]
    zeros = torch.tensor([[-0.0, 0.0, -0.0, 0.0]], device=device)
    assert topk_mask(zeros, 0.5, rank="signed").tolist() == [[True, True, False, False]]


def test_by_pixel(device):
    grad = torch.randn(4, 3, 6, 7, device=device)
    mask = topk_mask(grad, 0.2, by="pixel")
    assert mask.is_contiguous() and torch.equal(mask.all(1), mask.any(1))
    assert torch.equal(mask[:, 0], sorted_selection(grad.abs().sum(1), 0.2, "abs"))
    signed = topk_mask(grad, 0.2, by="pixel", rank="signed")
    assert torch.equal(signed[:, 0], sorted_selection(grad.sum(1), 0.2, "signed"))


def test_nan_is_an_error_on_the_cpu(monkeypatch):
    for n, few in ((5, 100), (500, 0), (20000, 0)):
        monkeypatch.setattr(bracket, "FEW", few)
        grad = torch.ones(2, n)
        grad[1, 3] = math.nan
        with pytest.raises(ValueError, match="NaN"):
            topk_mask(grad, 0.4)
        with pytest.raises(ValueError, match="NaN"):
            topk_masked_step(grad, grad, grad, 0.4, 0.1, 0.1)
    assert not nan_seen(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nan_is_noted_and_never_selected_on_cuda():
    for n in (50, 40000):
        grad = torch.arange(float(n), device="cuda")[None].clone()
        grad[0, 7] = math.nan
        assert topk_mask(grad, 3 / n).nonzero()[:, 1].tolist() == [n - 3, n - 2, n - 1]
        assert nan_seen(torch.device("cuda")) and not nan_seen(torch.device("cuda"))


def check_equation_6(device, by, rank, supported, dtype):
    x = torch.rand(6, 3, 9, 10, device=device, dtype=dtype)
    x[:, :, 0], x[:, :, 1] = 0, 1
    noise = (torch.rand_like(x) * 2 - 1) * 8 / 255
    grad = torch.randn_like(x)
    step, radius, fraction = 1.6 / 255, 8 / 255, 0.15
    support = topk_mask(torch.randn_like(x), 0.3, by=by) if supported else None
    mask = topk_mask(grad, fraction, by=by, rank=rank)
    if support is not None:
        mask = (
            reference.select_within(
                reference.scores(grad.cpu(), by, rank),
                (support.any(1) if by == "pixel" else support).flatten(1).cpu(),
                reference.count(fraction, 90 if by == "pixel" else 270),
            )
            .to(device)
            .view(6, 1 if by == "pixel" else 3, 9, 10)
            & support
        )
    moved = (noise - step * (mask * grad.sign())).clamp(-radius, radius)
    expected = torch.minimum(torch.maximum(moved, -x), 1 - x)
    out = topk_masked_step(noise, grad, x, fraction, step, radius, support=support, by=by, rank=rank)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-8)
    assert out.abs().max() <= radius + 1e-7 and (x + out).min() >= 0 and (x + out).max() <= 1 + 1e-6


@pytest.mark.parametrize("supported", [False, True])
@pytest.mark.parametrize("by", ["element", "pixel"])
def test_step_is_equation_6(device, by, supported):
    for rank, dtype in itertools.product(RANKS, (torch.float32, torch.float64)):
        check_equation_6(device, by, rank, supported, dtype)


def test_strict_support_keeps_the_count(device):
    x = torch.rand(5, 3, 28, 28, device=device)
    support = topk_mask(torch.randn_like(x), 0.1)
    noise = torch.zeros_like(x)
    for _ in range(4):
        noise = topk_masked_step(noise, torch.randn_like(x), x, 0.1, 1.6 / 255, 8 / 255, support=support)
    assert (noise != 0).flatten(1).sum(1).max() <= 235
    assert not (noise != 0)[~support].any()


def test_support_with_fewer_than_k_and_minus_infinities():
    ranked = torch.tensor([[3.0, -math.inf, 1.0, -math.inf, 5.0]])
    allowed = torch.tensor([[False, True, True, True, False]])
    assert reference.select_within(ranked, allowed, 2).tolist() == [[False, True, True, False, False]]
    assert reference.select_within(ranked, allowed, 5).tolist() == allowed.tolist()


def test_grad_mask_keeps_the_top(device):
    x = torch.randn(3, 2, 8, 8, device=device, requires_grad=True)
    upstream = torch.randn_like(x)
    out = topk_grad_mask(x, 0.25)
    assert torch.equal(out, x)
    (grad,) = torch.autograd.grad(out, x, upstream)
    assert torch.equal(grad, upstream * topk_mask(upstream, 0.25))
    compiled = torch.compile(lambda x: (topk_grad_mask(x, 0.25) * upstream).sum(), fullgraph=True, backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(x), x)[0], grad)


def test_opcheck(device):
    ops = torch.ops.medveil
    for batch in (3, 0):
        x = torch.rand(batch, 3, 5, 6, device=device).to(memory_format=torch.channels_last)
        torch.library.opcheck(ops.topk_mask.default, (x, 0.2, "pixel", "abs"))
        for support in (None, x > 0.5):
            torch.library.opcheck(
                ops.topk_masked_step.default, (x - x, x - 0.5, x, 0.2, 0.01, 0.03, support, "element", "abs")
            )


def test_layouts_and_compile(device):
    x = torch.rand(4, 3, 8, 9, device=device)
    grad, noise = torch.randn_like(x), torch.zeros_like(x)
    plain = topk_masked_step(noise, grad, x, 0.2, 0.01, 0.03)

    def last(t):
        return t.to(memory_format=torch.channels_last)

    assert torch.equal(topk_masked_step(last(noise), last(grad), last(x), 0.2, 0.01, 0.03), plain)
    compiled = torch.compile(topk_masked_step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(last(noise), grad, x, 0.2, 0.01, 0.03), plain)


def test_on_the_cpu_blocks_of_rows_change_nothing():
    shape = (3, 1, 1000, 1000)  # more than the 2 ** 21 elements that are worked on at a time
    noise, grad, x = (torch.rand(shape) - 0.5) / 9, torch.randn(shape), torch.rand(shape)
    expected = reference.topk_masked_step(noise, grad, x, 0.2, 0.01, 0.03, None, "element", "abs")
    assert torch.equal(topk_masked_step(noise, grad, x, 0.2, 0.01, 0.03), expected)
    assert torch.equal(
        topk_masked_step(noise, grad.to(memory_format=torch.channels_last), x, 0.2, 0.01, 0.03), expected
    )


def test_mistakes():
    zeros = torch.zeros(2, 4)
    assert not nan_seen("cpu")
    for change, message in (
        ({"fraction": 1.5}, "fraction must be"),
        ({"by": "row"}, "by must be"),
        ({"rank": "top"}, "rank must be"),
        ({"radius": -1.0}, "radius must be"),
        ({"x": torch.zeros(2, 2)}, "one shape"),
        ({"x": zeros.to(torch.uint8)}, "must be floating, not torch.float32 and torch.uint8"),
        ({"noise": zeros.to(torch.int8)}, "must be floating"),
        ({"support": torch.ones(2, 4)}, "support must be bool"),
        ({"by": "pixel"}, r"must be \[N, C, ...\]"),
    ):
        arguments = {"noise": zeros, "grad": zeros, "x": zeros, "fraction": 0.5, "step": 0.1, "radius": 0.1} | change
        with pytest.raises(ValueError, match=message):
            topk_masked_step(**arguments)


def test_rows_that_are_nothing_like_each_other(device, monkeypatch):
    # Few of them fit what is guessed on the CPU from the others.
    monkeypatch.setattr(bracket, "FEW", 0)
    for n in (784, 2352, 20000):
        grad = torch.randn(12, n, device=device) * torch.logspace(-30, 30, 12, device=device)[:, None]
        grad[1], grad[2], grad[3, 5], grad[4] = 0, 1, math.inf, torch.randn(n, device=device).round()
        grad[5, : n // 2] = 0
        for rank, fraction in itertools.product(RANKS, (0.01, 0.1, 0.9)):
            selected = sorted_selection(grad, fraction, rank)
            assert torch.equal(topk_mask(grad, fraction, rank=rank), selected), (n, rank, fraction)


@pytest.fixture
def given_up(monkeypatch):
    """The rows that are partitioned on the CPU: those for which no bracket was found."""
    rows, partition = [], np.partition
    monkeypatch.setattr(np, "partition", lambda values, *a, **k: rows.extend(values) or partition(values, *a, **k))
    return rows


def test_of_rows_that_are_alike_few_are_given_up(given_up):
    for shape, rank in itertools.product([(300, 784), (20, 20000)], RANKS):
        grad = torch.randn(shape) ** 3 * torch.rand(shape[0], 1)
        grad[7] = 1e-3  # all tied
        given_up.clear()
        assert torch.equal(topk_mask(grad, 0.1, rank=rank), sorted_selection(grad, 0.1, rank)), (shape, rank)
        assert 1 <= len(given_up) <= 1 + shape[0] // 8, (shape, rank)


def test_rows_that_tie_at_the_threshold_are_not_given_up(given_up):
    """Gradients in bf16 hold few values, so that many rows tie at their k-th."""
    grad = (torch.randn(400, 784) ** 3).bfloat16().float()
    size = grad.abs()
    assert ((size >= size.kthvalue(707, 1, keepdim=True).values).sum(1) != 78).float().mean() > 0.2
    assert torch.equal(topk_mask(grad, 0.1), sorted_selection(grad, 0.1, "abs"))
    assert len(given_up) <= 10


def test_another_default_dtype():
    noise, grad, x = torch.randn(3, 2, 50), torch.randn(3, 2, 50), torch.rand(3, 2, 50)
    expected = topk_masked_step(noise, grad, x, 0.1, 0.1, 0.5)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(topk_masked_step(noise, grad, x, 0.1, 0.1, 0.5), expected)
    finally:
        torch.set_default_dtype(torch.float32)
