"""``cdc_conv2d`` on every encoder layer of UMed's U-Net (64 wide) at 224. Operations: 18 C O H W forward, three times
that in all. Bytes: x read and the result written, once forward, three times (stems: twice) with gradients.

The rival that counts is one library convolution with kernels folded beforehand.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medveil.kernels import cdc_conv2d
from medveil.kernels.cdc.reference import fold, naive_cdc_conv2d

LAYERS = [(1, 64, 224), (3, 64, 224), (64, 64, 224)]
LAYERS += [shape for i in range(4) for shape in ((64 << i, 128 << i, 112 >> i), (128 << i, 128 << i, 112 >> i))]
ONES = [1, 1]


@pytest.mark.parametrize("provider", ["medveil", "one convolution", "naive", "compile", "stem", "gemm"])
@pytest.mark.parametrize("way", ["forward", "both"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: "-".join(map(str, layer)))
def test_cdc(measure, device, layer, way, provider):
    channels, outputs, side = layer
    kernel_only = provider in ("stem", "gemm")
    if provider == "compile" and not measure.with_compile:
        pytest.skip("--with-compile")
    if kernel_only and (device.type == "cpu" or way == "both" or (provider == "stem") != (channels <= 3)):
        pytest.skip("a forward kernel for CUDA")
    # On the CPU two images of the largest layers: from 32 MB on the C library maps a result anew at each call, whatever
    # it is told, and the time would be that of its page faults.
    batch, dtype = (16, torch.bfloat16) if device.type == "cuda" else (2 if side == 224 else 4, torch.float32)
    x = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last) if device.type == "cuda" and channels > 3 else x
    x = x.requires_grad_(channels > 3)  # the first layer's input is the image
    v, c = (torch.randn(outputs, channels, 3, 3, device=device) / channels**0.5 / 3 for _ in range(2))
    v, c = v.to(dtype).requires_grad_(), c.to(dtype).requires_grad_()
    bias = torch.randn(outputs, device=device, dtype=dtype)
    folded = fold(v.detach(), c.detach()).requires_grad_()
    compiled = torch.compile(naive_cdc_conv2d) if provider == "compile" else naive_cdc_conv2d

    def kernel() -> Tensor:
        from medveil.kernels.cdc.plan import Choices, plan_for  # needs Triton

        given = x.detach(), v.detach(), c.detach(), bias
        return plan_for(Choices(provider, "library", "library"), *given, ONES, ONES, ONES).forward(*given)[0]

    forwards: dict[str, Callable[[], Tensor]] = {
        "medveil": lambda: cdc_conv2d(x, v, c, bias),
        "one convolution": lambda: F.conv2d(x, folded, bias, padding=1),
        "naive": lambda: naive_cdc_conv2d(x, v, c, bias, ONES, ONES, ONES),
        "compile": lambda: compiled(x, v, c, bias, ONES, ONES, ONES),
        "stem": kernel,
        "gemm": kernel,
    }
    forward = forwards[provider]
    inputs = [folded] if provider == "one convolution" else [v, c]
    inputs += [x] if x.requires_grad else []
    grad = torch.randn_like(forward())

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), inputs, grad)

    tolerance = 1e-3 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(forward(), forwards["naive"](), rtol=tolerance, atol=tolerance, check_stride=False)
    run, factor = (both, 3 if channels > 3 else 2) if way == "both" else (forward, 1)
    flops = factor * 18 * channels * outputs * side * side * batch
    group = f"cdc {way} {batch}x{channels}x{side}x{side} to {outputs} {device.type}"
    bytes_ = factor * dtype.itemsize * batch * (channels + outputs) * side**2
    rounds = 41 if channels <= 3 else 7 if device.type == "cuda" or way == "forward" else 5
    warmups = 12 if channels <= 3 else 2
    measure(provider, run, group, bytes_=bytes_, flops=flops, rounds=rounds, warmups=warmups)
