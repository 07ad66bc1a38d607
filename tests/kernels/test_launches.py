"""What the launchers launch, on tensors without memory: how many kernels, and what else the device has to do."""

import pytest
import torch

pytest.importorskip("triton")

from medveil.kernels.cdc import cuda as cdc
from medveil.kernels.cdc.launchers import precision
from medveil.kernels.topk import cuda as topk
from tests.kernels.launches import meta, recorded
from tests.operations import Operations

UNIT = [1, 1], [1, 1], [1, 1]


def made(call):
    """The kernels that ``call`` launches, by name, and the library's operators beside them."""
    with Operations() as operations:
        names = [launch.name for launch in recorded(call)]
    return names, {name: count for name, count in operations.found.items() if count}


@pytest.mark.parametrize("rows", [1, 416, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_rows_take_three_launches_however_many(rows, dtype):
    gradient = meta(rows, 3, 224, 224, dtype=dtype)
    topk.nan_flag(gradient.device)  # made once
    names, others = made(
        lambda: topk.topk_masked_step(gradient, gradient, gradient, 0.1, 0.1, 0.1, None, "element", "abs")
    )
    assert names == ["topk_bracket_kernel", "topk_gather_kernel", "topk_settle_kernel"]
    assert not others


def test_short_rows_take_one_launch_of_a_warp_each():
    gradient = meta(512, 1, 28, 28)
    (launch,) = recorded(lambda: topk.topk_mask(gradient, 0.1, "element", "abs"))
    assert launch.name == "topk_row_kernel" and launch.grid == (512,) and launch.constant("num_warps") == 1


def test_a_wide_convolution_costs_one_more_launch_each_way():
    x = meta(16, 64, 56, 56, dtype=torch.bfloat16, last=True)
    weight = meta(128, 64, 3, 3, last=True)

    def both():
        out, folded = cdc.cdc_conv2d(x, weight, weight, None, *UNIT)
        assert folded.dtype == x.dtype and folded.is_contiguous(memory_format=torch.channels_last)
        grads = cdc.cdc_conv2d_backward(torch.empty_like(out), x, folded, weight, weight, *UNIT, [True, True, False])
        assert all(grad.stride() == weight.stride() and grad.dtype == weight.dtype for grad in grads[1:3])

    assert made(both) == (["fold_kernel", "unfold_kernel"], {"convolution": 1, "convolution_backward": 1})


def test_a_stem_is_ours_both_ways():
    x, weight = meta(16, 3, 224, 224, dtype=torch.bfloat16, last=True), meta(64, 3, 3, 3, last=True)

    def both():
        out, folded = cdc.cdc_conv2d(x, weight, weight, None, *UNIT)
        cdc.cdc_conv2d_backward(torch.empty_like(out), x, folded, weight, weight, *UNIT, [False, True, False])

    assert made(both) == (["fold_kernel", "stem_fwd_kernel", "stem_weight_kernel", "unfold_kernel"], {})


def test_how_fp32_is_multiplied_follows_the_library_s_setting_old_or_new():
    conv = torch.backends.cudnn.conv
    kept = conv.fp32_precision
    try:
        for value, expected in (("ieee", "ieee"), ("tf32", "tf32")):
            conv.fp32_precision = value
            assert precision() == expected
        torch.backends.cudnn.allow_tf32 = False
        assert precision() == "ieee"
    finally:
        torch.backends.cudnn.allow_tf32 = True
        conv.fp32_precision = kept
