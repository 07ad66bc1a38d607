"""What is replayed and what is computed eagerly; recording itself needs a GPU, and another recorder stands in."""

import pytest
import torch

from medveil import graphs
from medveil.graphs import Replayed
from tests import recorder


@pytest.fixture
def recorded(monkeypatch):
    """Sizes that were recorded."""
    sizes = []

    def record(function, inputs):
        sizes.append(len(inputs[0]))
        return recorder.record(function, inputs)

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "recordable", lambda tensors: True)
    return sizes


def test_fixed_shapes_are_replayed_and_others_computed(recorded):
    called = []

    def add(a, b):
        called.append(len(a))
        return a + b

    replayed = Replayed(add)
    first = [torch.rand(8, 2) for _ in range(2)]
    result = replayed(*first)
    again = replayed(first[0] * 2, first[1])
    assert torch.equal(result, first[0] + first[1])  # not overwritten by the second call
    assert torch.equal(again, 2 * first[0] + first[1])
    assert recorded == called == [8]
    partial = [torch.rand(3, 2) for _ in range(2)]
    assert torch.equal(replayed(*partial), partial[0] + partial[1])
    other = torch.rand(2, 8).t()
    assert torch.equal(replayed(other, other), other + other)
    assert recorded == [8] and called == [8, 3, 8]


def test_what_is_replayed_reads_other_tensors_where_they_lie(recorded):
    weight = torch.ones(3)
    replayed = Replayed(lambda a: a * weight)
    for _ in range(3):
        given = torch.rand(5, 3)
        assert torch.equal(replayed(given), given * weight)
        weight.add_(1)
    assert recorded == [5]


def test_a_partial_batch_that_comes_first_does_not_stay(recorded):
    replayed = Replayed(lambda a: a * 2)
    for size in (3, 8, 3, 8):
        given = torch.rand(size)
        assert torch.equal(replayed(given), given * 2)
    assert recorded == [3, 8]


def test_the_cpu_computes_eagerly():
    replayed = Replayed(lambda a: a + 1)
    assert torch.equal(replayed(torch.zeros(2)), torch.ones(2)) and not replayed.inputs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_graph_gives_what_eager_gives():
    weight = torch.randn(4, 4, device="cuda")

    def gradient(x):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad((x @ weight).relu().square().sum(), x)[0]

    replayed = Replayed(gradient)
    for _ in range(3):
        x = torch.randn(5, 4, device="cuda")
        torch.testing.assert_close(replayed(x), gradient(x))
        weight.mul_(0.5)
