from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from medveil.kernels import CentralDifferenceConv2d, cdc_conv2d, cdc_conv2d_stats, convert_to_cdc
from medveil.kernels.cdc.reference import naive_cdc_conv2d

GEOMETRIES = [(1, 1, 1), (2, 1, 1), (2, 2, 2), (1, 0, 1), (1, 3, 1), (3, 0, 2)]  # stride, padding, dilation


def tensors(device, channels=3, outputs=4, size=(7, 9), batch=2, dtype=torch.float64):
    shapes = [(batch, channels, *size), (outputs, channels, 3, 3), (outputs, channels, 3, 3), (outputs,)]
    return [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_equation_3_with_its_gradients(device, layout):
    for stride, padding, dilation in GEOMETRIES:
        x, v, c, bias = tensors(device)
        x = x.detach().to(memory_format=layout).requires_grad_()
        out = cdc_conv2d(x, v, c, bias, stride, padding, dilation)
        expected = naive_cdc_conv2d(x, v, c, bias, [stride] * 2, [padding] * 2, [dilation] * 2)
        torch.testing.assert_close(out, expected)
        upstream = torch.randn_like(out)
        ours = torch.autograd.grad(out, (x, v, c, bias), upstream)
        theirs = torch.autograd.grad(expected, (x, v, c, bias), upstream)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_gradcheck(device):
    x, v, c, bias = tensors(device, channels=1, outputs=2, size=(3, 6), batch=1)
    assert torch.autograd.gradcheck(lambda *a: cdc_conv2d(*a, 2, (1, 0), (1, 2)), (x, v, c, bias))


@pytest.mark.parametrize(
    ("batch", "layout", "biased"),
    [(2, torch.contiguous_format, True), (2, torch.channels_last, False), (0, torch.channels_last, True)],
)
def test_opcheck(device, batch, layout, biased):
    x, v, c, bias = tensors(device, batch=batch, dtype=torch.float32)
    x = x.detach().to(memory_format=layout).requires_grad_()
    arguments = (x, v, c, bias if biased else None, [2, 2], [1, 1], [1, 1])
    torch.library.opcheck(torch.ops.medveil.cdc_conv2d.default, arguments)


@pytest.mark.parametrize(("outputs", "dtype"), [(4, torch.float32), (4, torch.bfloat16), (2000, torch.float32)])
def test_opcheck_of_one_channel_whose_layout_is_open(device, outputs, dtype):
    # Kernels of one channel are contiguous and channels_last at once, until the library decides by the strides.
    x, v, c, _ = tensors(device, channels=1, outputs=outputs, dtype=torch.float32)
    v, c = (t.detach().to(memory_format=torch.channels_last).requires_grad_() for t in (v, c))
    arguments = (x.to(dtype), v, c, None, [1, 1], [1, 1], [1, 1])
    torch.library.opcheck(torch.ops.medveil.cdc_conv2d.default, arguments)


def test_compiles_whole(device):
    x, v, c, bias = tensors(device, dtype=torch.float32)

    def loss(x, v, c, bias):
        return cdc_conv2d(x, v, c, bias).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x, v, c, bias), v), torch.autograd.grad(loss(x, v, c, bias), v)
    )


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sums_are_those_of_the_output_with_their_gradients(device, relu, layout):
    x, v, c, bias = tensors(device)
    x = x.detach().to(memory_format=layout).requires_grad_()
    out, sums = cdc_conv2d_stats(x, v, c, bias, 2, (1, 2), relu=relu)
    expected = naive_cdc_conv2d(x, v, c, bias, [2, 2], [1, 2], [1, 1])
    expected = expected.relu() if relu else expected
    of_expected = torch.stack([expected.sum((0, 2, 3)), (expected**2).sum((0, 2, 3))])
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(sums, of_expected)
    upstream = torch.randn_like(out), torch.randn_like(sums)
    ours = torch.autograd.grad((out, sums), (x, v, c, bias), upstream)
    theirs = torch.autograd.grad((expected, of_expected), (x, v, c, bias), upstream)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_sums_serve_a_batch_norm(device):
    x, v, c, _ = tensors(device, dtype=torch.float32)
    out, sums = cdc_conv2d_stats(x, v, c)
    mean, squares = sums / (out.numel() / out.shape[1])
    normalised = (out - mean[:, None, None]) / (squares - mean**2 + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(normalised, nn.functional.batch_norm(out, None, None, training=True), rtol=0, atol=1e-5)


def test_sums_gradcheck_opcheck_and_compile(device):
    x, v, c, bias = tensors(device, channels=1, outputs=2, size=(3, 4), batch=1)
    assert torch.autograd.gradcheck(lambda *a: cdc_conv2d_stats(*a, relu=True), (x, v, c, bias))
    x, v, c, bias = tensors(device, dtype=torch.float32)
    compiled = torch.compile(cdc_conv2d_stats, fullgraph=True, backend="aot_eager")
    ours, theirs = (sum(t.square().mean() for t in run(x, v, c, bias)) for run in (compiled, cdc_conv2d_stats))
    torch.testing.assert_close(torch.autograd.grad(ours, c), torch.autograd.grad(theirs, c))
    for batch in (2, 0):
        x, v, c, bias = tensors(device, batch=batch, dtype=torch.float32)
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
        operator = torch.ops.medveil.cdc_conv2d_stats.default
        torch.library.opcheck(operator, (x, v, c, bias, [2, 2], [1, 1], [1, 1], True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_backward_promises_the_layout_that_it_gives(device, layout):
    x, v, c, _ = (
        t.detach().to(memory_format=layout) if t.ndim == 4 else t for t in tensors(device, dtype=torch.float32)
    )
    for wanted in ([True] * 3, [False, True, False]):
        folded = torch.ops.medveil.cdc_conv2d(x, v, c, None, [1, 1], [1, 1], [1, 1])[1]
        arguments = (torch.randn(2, 4, 7, 9, device=device), x, folded, v, c, [1, 1], [1, 1], [1, 1], wanted)
        torch.library.opcheck(torch.ops.medveil.cdc_conv2d_backward.default, arguments)


def test_one_pixel_and_frozen_weights(device):
    x, v, c, _ = tensors(device, size=(1, 1))
    torch.testing.assert_close(cdc_conv2d(x, v, c), naive_cdc_conv2d(x, v, c, None, [1, 1], [1, 1], [1, 1]))
    out = cdc_conv2d(x, v.detach(), c.detach())
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.shape == x.shape


def test_autocast_folds_before_rounding(device):
    x, v, c, bias = tensors(device, dtype=torch.float32)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = cdc_conv2d(x, v, c, bias)
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert v.grad.dtype == c.grad.dtype == bias.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), cdc_conv2d(x, v, c, bias), atol=0.1, rtol=0.05)


def test_module_and_conversion():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=2))
    x = torch.randn(2, 3, 9, 9)
    first = net[0](x)
    convert_to_cdc(net)
    swapped = net[0]
    assert isinstance(swapped, CentralDifferenceConv2d)
    assert type(net[1]) is nn.Conv2d and type(net[2]) is nn.Conv2d
    assert swapped(x).shape == first.shape and not torch.allclose(swapped(x), first)
    nn.init.zeros_(swapped.weight_c)
    torch.testing.assert_close(swapped(x), first)
    assert set(swapped.state_dict()) == {"weight_v", "weight_c", "bias"}
    assert isinstance(convert_to_cdc(nn.Conv2d(1, 1, 3, bias=False)), CentralDifferenceConv2d)


def test_shapes_and_dtypes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"must both be \[O, C, 3, 3\]"):
        cdc_conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"x must be floating, not torch.uint8"):
        cdc_conv2d(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"bias must be \[1\]"):
        cdc_conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"x must be \[N, 2, H, W\]"):
        cdc_conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3))


def test_memory_kept_since_inference_mode_and_another_default_dtype():
    def outputs():
        # As wide as a layer whose folded kernel is kept.
        wide = tensors("cpu", channels=48, outputs=48, size=(3, 3), dtype=torch.float32)
        x, v, c, bias = (tensor.detach() for tensor in wide)
        with torch.inference_mode():
            yield cdc_conv2d(x, v, c, bias)
        yield cdc_conv2d(x, v, c, bias)
        torch.set_default_dtype(torch.float64)
        try:
            yield cdc_conv2d(x, v, c, bias)
        finally:
            torch.set_default_dtype(torch.float32)

    with ThreadPoolExecutor(1) as new_thread:  # memory is kept per thread: this one has none yet
        first, second, third = new_thread.submit(lambda: list(outputs())).result()
    assert torch.equal(second, first) and torch.equal(third, first)
