"""ResNet-18 and the U-Net: a shortcut taken apart, the memory format of the backward, and the last levels."""

import pytest
import torch
from torch import nn

from medveil.networks import ResNet18, UNet, deepest, last_stage, stem_for


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


@pytest.mark.parametrize("size", [(8, 8), (8, 9), (28, 28), (63, 70), (64, 64), (65, 64), (224, 31)])
def test_the_pixels_of_the_last_level_are_counted(size):
    """What batch-norms see least of: the shapes that the networks really have."""
    seen = []
    net = ResNet18(1, 2, width=1, stem=stem_for(size)).eval()
    net.stages[-1].register_forward_hook(lambda _, given, out: seen.append(out[0, 0].numel()))
    unet = UNet(1, 1, width=1, depth=4).eval()
    unet.encoder[-1].register_forward_hook(lambda _, given, out: seen.append(out[0, 0].numel()))
    for one in (net, unet):
        one(torch.zeros(1, 1, *size))
    assert seen == [last_stage(size), deepest(size, 4)]
