"""Networks that compute in shards: the same function, and sums that do not depend on who adds them."""

import copy

import pytest
import torch
from torch import nn

from medveil import batchnorm, shards
from medveil.kernels import CentralDifferenceConv2d
from medveil.networks import ResNet18, UNet


@pytest.mark.parametrize(("count", "parts"), [(10, 4), (7, 8), (0, 2), (27, 8), (9, 3)])
def test_cuts_are_even_and_nest(count: int, parts: int) -> None:
    sizes = [part.stop - part.start for part in shards.cuts(count, parts)]
    assert sum(sizes) == count and max(sizes) - min(sizes) <= 1
    if parts % 2 == 0:
        coarse = shards.cuts(count, parts // 2)
        assert [part.stop for part in shards.cuts(count, parts)][1::2] == [part.stop for part in coarse]


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ResNet18(1, 3, width=4), (7, 1, 28, 28)),
        (UNet(3, 1, width=4, depth=2), (3, 3, 16, 16)),
        (nn.Sequential(CentralDifferenceConv2d(2, 4), nn.BatchNorm2d(4)), (1, 2, 5, 5)),
    ],
)
def test_in_shards_a_network_computes_what_it_does(network: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64)
    plain = copy.deepcopy(network).double()
    names = list(plain.state_dict())
    sharded = batchnorm.convert(shards.convert(copy.deepcopy(plain), 4), shards=4)
    assert list(sharded.state_dict()) == names
    outs = [module(x) for module in (plain, sharded)]
    torch.testing.assert_close(outs[1], outs[0])
    for out in outs:
        out.square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(sharded.eval()(x), plain.eval()(x))


def test_gradients_are_summed_as_a_tree_whatever_the_order_they_arrive_in() -> None:
    # About 1e8 fp32 goes in steps of 8: neighbours first gives 1e8 + 16, one after the other from either end 1e8 + 8.
    slopes = torch.tensor([1e8, 5.0, 3.0, 3.0])
    layer = nn.Linear(1, 1, bias=False)
    (shards.convert(layer, 4)(slopes[:, None]).sum()).backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.item() == 1e8 + 16
