"""ResNet-18: its shortcut taken apart is the strided convolution, and its backward keeps the memory format."""

import pytest
import torch
from torch import nn

from medveil.networks import ResNet18


@pytest.mark.parametrize("side", [28, 25])
def test_the_shortcut_is_the_strided_convolution(side):
    block = ResNet18(3, 2, width=4).stages[2].eval()
    every, conv, norm = block.shortcut
    strided = nn.Conv2d(4, 8, 1, stride=2, bias=False)
    strided.weight = conv.weight
    x = torch.randn(3, 4, side, side)
    torch.testing.assert_close(norm(conv(every(x))), norm(strided(x)))


def test_gradients_keep_the_memory_format():
    """A gradient in another format than its image makes each ReLU before it many times slower."""
    net = ResNet18(3, 2, width=4).to(memory_format=torch.channels_last)
    formats = []
    for block in net.stages:
        block.register_full_backward_hook(lambda *given: formats.append(given[1][0]))
    net(torch.randn(3, 3, 28, 28).contiguous(memory_format=torch.channels_last).requires_grad_()).sum().backward()
    assert len(formats) == 8
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in formats)
