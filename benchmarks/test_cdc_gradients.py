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
    from medveil.kernels.cdc.plan import Choices, plan_for  # needs Triton

    channels, outputs, side = layer
    if what == "weight" and channels > STEM_CHANNELS:
        pytest.skip("the library's alone")
    batch, dtype = 16, torch.bfloat16
    x, grad = (torch.randn(batch, c, side, side, device=device, dtype=dtype) for c in (channels, outputs))
    x, grad = (t.to(memory_format=torch.channels_last) for t in (x, grad))
    v, c = (torch.randn(outputs, channels, 3, 3, device=device, dtype=dtype) / channels**0.5 / 3 for _ in range(2))
    wanted = [what == "input", what == "weight", what == "weight"]
    forward = choose("forward", channels, dtype)

    def by(choices: Choices) -> Callable[[], tuple[Tensor, ...]]:
        plan = plan_for(choices, x, v, c, None, ONES, ONES, ONES)
        folded = plan.folded_of(v, c)
        return lambda: tuple(g for g in plan.gradients(grad, x, folded, wanted) if g is not None)

    library = by(Choices(forward, "library", "library"))
    runs = {"library": library, "ours": by(Choices(forward, "gemm", "stem"))}
    # Sums of up to 800,000 terms of about 1, rounded to bf16.
    scale = max(t.abs().max().item() for t in library())
    for mine, other in zip(runs[provider](), library(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0.05, atol=0.01 * scale, check_stride=False)
    flops = 18 * channels * outputs * side * side * batch
    group = f"cdc {what} gradient {batch}x{channels}x{side}x{side} to {outputs} {device.type}"
    measure(provider, runs[provider], group, flops=flops, rounds=7)
