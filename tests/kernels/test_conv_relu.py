"""A convolution, a sum and a ReLU in one operator: what the parts compute, with their gradients."""

import pytest
import torch
from torch import nn
from torch.library import opcheck

from medveil.kernels import conv_relu, flip_shift

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def convolution(device, bias=True):
    return nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias).to(device).requires_grad_(False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_equals_its_parts(device, bias, last):
    conv = convolution(device, bias)
    x, other = torch.randn(2, 3, 9, 7, device=device), torch.randn(2, 4, 5, 4, device=device)
    if last:
        x, other = (t.to(memory_format=torch.channels_last) for t in (x, other))
    leaves = [t.requires_grad_() for t in (x, other)]
    for found, expected in (
        (conv_relu(conv, x), conv(x).relu()),
        (conv_relu(conv, x, other), (conv(x) + other).relu()),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        grads = [
            torch.autograd.grad((out * out).sum(), leaves, allow_unused=True, materialize_grads=True)
            for out in (found, expected)
        ]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_registrations_hold():
    conv = convolution("cpu")
    x, other = torch.randn(2, 3, 9, 7, requires_grad=True), torch.randn(2, 4, 5, 4, requires_grad=True)
    geometry = [2, 2], [1, 1], [1, 1], 1
    opcheck(torch.ops.medveil.conv_relu.default, (x, conv.weight, conv.bias, other, *geometry))
    words = torch.randint(0, 2**32, (4, 3))
    opcheck(torch.ops.medveil.flip_shift.default, (x, words, 2, True))
    opcheck(torch.ops.medveil.philox_words.default, (words[:, 0], words[0], 5, 6, 7))


def test_weights_that_are_trained_are_refused():
    conv = nn.Conv2d(3, 4, 3)
    for one in (conv.weight, conv.bias):  # either alone too: it would have got no gradient
        with pytest.raises(ValueError, match="gradients"):
            conv_relu(conv, torch.randn(1, 3, 5, 5))
        one.requires_grad_(False)
    with pytest.raises(ValueError, match=r"words must be \[T, 3\]"):
        flip_shift(torch.randn(2, 1, 5, 5), torch.zeros(2, 2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="whole number"):
        flip_shift(torch.randn(2, 1, 5, 5), torch.zeros(3, 3, dtype=torch.int64), 1)
