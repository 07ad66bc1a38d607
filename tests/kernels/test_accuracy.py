"""The operators' errors on this machine's devices; test_triton.py holds the kernels in the interpreter to the same."""

import pytest
import torch

from medveil.kernels.layout import needs_64_bits, prefers_channels_last
from tests.kernels import accuracy

OPERATORS = {
    name: getattr(torch.ops.medveil, name)
    for name in (
        "cdc_conv2d",
        "cdc_conv2d_stats",
        "cdc_conv2d_backward",
        "lbp_adaptive_clip",
        "lbp_adaptive_clip_tanh_backward",
        "topk_masked_step",
    )
}


@pytest.fixture
def full_fp32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("dtype", accuracy.DTYPES)
@pytest.mark.parametrize("choice", ["as the table says", "gemm", "stem"])
def test_convolution_keeps_its_error_budget(device, dtype, choice, full_fp32, monkeypatch):
    if choice != "as the table says":
        if device.type == "cpu":
            pytest.skip("kernels for CUDA")
        from medveil.kernels.cdc import choices, cuda

        def choose(what, channels, dtype):
            wide = channels > choices.STEM_CHANNELS
            if what == "input":
                return "gemm"
            return (
                "library"
                if wide and (choice == "stem" or what == "weight")
                else choice
                if what == "forward"
                else "stem"
            )

        monkeypatch.setattr(cuda, "choose", choose)
        accuracy.cdc_propagates_nan_and_inf(OPERATORS, device, *((1, 17) if choice == "gemm" else (1,)))
    accuracy.cdc(OPERATORS, device, dtype)


@pytest.mark.parametrize("dtype", accuracy.DTYPES)
@pytest.mark.parametrize("operator", ["clip", "step"])
def test_operators_keep_their_error_budgets(device, dtype, operator):
    getattr(accuracy, operator)(OPERATORS, device, dtype)


def test_clip_shows_a_nan(device):
    accuracy.clip_propagates_nan(OPERATORS, device)


def test_a_worse_result_breaks_the_budget():
    exact = torch.zeros(4, dtype=torch.float64)
    eager = torch.full((4,), 1e-7)
    accuracy.assert_within_budget(torch.full((4,), 4e-7), eager, exact, 9)
    with pytest.raises(AssertionError, match="an error of 5e-07"):
        accuracy.assert_within_budget(torch.full((4,), 5e-7), eager, exact, 9)


def test_64_bit_offsets_are_chosen_by_the_furthest_element():
    def empty(*shape):
        return torch.empty(shape, device="meta")

    assert not needs_64_bits(empty(2**15, 2**16), empty(0, 2**40))
    assert needs_64_bits(empty(3), empty(2**15 + 1, 2**16))
    assert needs_64_bits(empty(2**31 + 1)) and not needs_64_bits(empty(2**31))
    assert needs_64_bits(empty(2**32)[::2][: 2**30 + 1])  # few elements, far apart
    assert not needs_64_bits(empty(1).expand(2**40))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 1, 1, 1), (1, 4, 1, 3)])
def test_layout_of_a_convolution_is_the_library_s(shape):
    for x in (torch.randn(shape), torch.randn(shape).to(memory_format=torch.channels_last)):
        weight = torch.randn(3, shape[1], 3, 3)
        out = torch.nn.functional.conv2d(x, weight, padding=1)
        assert prefers_channels_last(x) == prefers_channels_last(out)
