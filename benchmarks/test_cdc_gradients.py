"""The gradients of ``cdc_conv2d`` one by one, kernel against library, on every encoder layer of UMed's U-Net at 224:
what ``kernels/cdc/choices.py`` is to be written from. CUDA only. Operations: 18 C O H W each."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.test_cdc import LAYERS, ONES
from medveil.kernels.cdc.choices import STEM_CHANNELS, choose


@pytest.mark.skipif(not torch.cuda.is_available(), reason="kernels for CUDA")
@pytest.mark.parametrize("provider", ["library", "ours"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: "-".join(map(str, layer)))
@pytest.mark.parametrize("what", ["input", "weight"])
def test_cdc_gradient(measure, device, layer, what, provider):
    from medveil.kernels.cdc import launchers  # needs Triton

    channels, outputs, side = layer
    if what == "weight" and channels > STEM_CHANNELS:
        pytest.skip("the library's alone")
    batch, dtype = 16, torch.bfloat16
    x, grad = (torch.randn(batch, c, side, side, device=device, dtype=dtype) for c in (channels, outputs))
    x, grad = (t.to(memory_format=torch.channels_last) for t in (x, grad))
    v, c = (torch.randn(outputs, channels, 3, 3, device=device, dtype=dtype) / channels**0.5 / 3 for _ in range(2))
    wanted = [what == "input", what == "weight", what == "weight"]
    folded = launchers.fold(x, v, c, choose("forward", channels, dtype))

    def library() -> tuple[Tensor, ...]:
        found = torch.ops.aten.convolution_backward(
            grad, x, folded, [outputs], ONES, ONES, ONES, False, [0, 0], 1, wanted
        )
        return found[:1] if what == "input" else (*launchers.unfold(found[1][None], v, c), found[2])

    def ours() -> tuple[Tensor, ...]:
        if what == "input":
            return (launchers.gemm_grad_input(grad, x, folded, ONES, ONES),)
        pieces, bias = launchers.stem_grad_weight(grad, x, ONES, ONES, ONES, True)
        return (*launchers.unfold(pieces, v, c), bias.to(dtype))

    runs: dict[str, Callable[[], tuple[Tensor, ...]]] = {"library": library, "ours": ours}
    # Sums of up to 800,000 terms of about 1, rounded to bf16.
    scale = max(t.abs().max().item() for t in library())
    for mine, other in zip(runs[provider](), library(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0.05, atol=0.01 * scale, check_stride=False)
    flops = 18 * channels * outputs * side * side * batch
    group = f"cdc {what} gradient {batch}x{channels}x{side}x{side} to {outputs} {device.type}"
    measure(provider, runs[provider], group, flops=flops, rounds=7)
