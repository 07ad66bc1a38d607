"""Folding batch-norms changes neither what a network computes nor the network."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from medveil import batchnorm, shards
from medveil.folding import folded, refold
from medveil.networks import ResNet18, UNet
from medveil.surrogate import input_gradient

NETWORKS = {
    "resnet": lambda: ResNet18(3, 4, width=4),
    "resnet, large stem": lambda: ResNet18(3, 4, width=4, stem="large"),
    "unet": lambda: UNet(3, 2, width=4, depth=2),
    "biased convolution": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False)),
    "global batch-norm": lambda: batchnorm.convert(ResNet18(3, 4, width=4)),
    "in shards": lambda: batchnorm.convert(shards.convert(ResNet18(3, 4, width=4), 2), shards=2),
    "kept batch-norm": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU()),
}


def trained(make, dtype):
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, batchnorm.GlobalBatchNorm)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            for parameter in module.parameters():
                nn.init.normal_(parameter, 1, 0.3)
    return net.to(dtype).train()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_outputs_and_gradients_are_those_of_eval_mode(name, dtype, tolerance):
    net = trained(NETWORKS[name], dtype)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fixed, x = folded(net), torch.rand(3, 3, 21, 19, dtype=dtype)
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert not fixed.training and not any(p.requires_grad for p in fixed.parameters())
    found = input_gradient(lambda z: fixed(z).flatten(1).logsumexp(1), x)
    net.eval()
    torch.testing.assert_close(fixed(x), net(x), rtol=tolerance, atol=tolerance)
    expected = input_gradient(lambda z: net(z).flatten(1).logsumexp(1), x)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("make", [lambda: ResNet18(3, 4), lambda: UNet(1, 1, width=4)])
def test_no_batch_norm_is_left_in_our_networks(make):
    kinds = {type(module) for module in folded(make().to(memory_format=torch.channels_last)).modules()}
    assert nn.BatchNorm2d not in kinds and nn.Conv2d in kinds


def test_a_folded_copy_follows_its_network_in_place():
    net, x = trained(lambda: ResNet18(3, 4, width=4), torch.float32), torch.rand(5, 3, 16, 16)
    fixed = folded(net)
    places = [p.data_ptr() for p in fixed.parameters()]
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    net(x).square().sum().backward()
    optimiser.step()
    refold(fixed, net)
    assert [p.data_ptr() for p in fixed.parameters()] == places
    torch.testing.assert_close(fixed(x), net.eval()(x), rtol=1e-4, atol=1e-4)


def test_under_autocast_folded_weights_are_rounded_once_to_what_every_call_would_round_them_to():
    net, x = trained(lambda: ResNet18(3, 4, width=4), torch.float32), torch.rand(5, 3, 16, 16)
    each_call = folded(net)
    with torch.autocast("cpu", torch.bfloat16):
        once = folded(net)
        assert once.stages[0].conv1.weight.dtype == torch.bfloat16
        for _ in range(2):
            found, expected = (input_gradient(lambda z, f=f: f(z).float().logsumexp(1), x) for f in (once, each_call))
            assert expected.any() and torch.equal(found, expected)
            torch.nn.init.normal_(net.stages[0].conv1.weight)
            refold(once, net)
            refold(each_call, net)


def test_channels_last_survives_odd_batches_on_several_threads():
    # Some versions of oneDNN end the process in the backward of strided channels_last convolutions.
    code = """
import torch
from medveil.folding import folded
from medveil.networks import ResNet18
from medveil.surrogate import input_gradient
torch.set_num_threads(3)
for stem in ("small", "large"):
    net = ResNet18(3, 4, width=16, stem=stem).to(memory_format=torch.channels_last)
    fixed = folded(net)
    assert fixed.stages[2].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for size in (28, 29):
        for batch in (1, 3, 7):
            for enabled in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                    gradient = input_gradient(lambda z: fixed(z).float().logsumexp(1), torch.rand(batch, 3, size, size))
                assert gradient.isfinite().all()
"""
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
