"""The Triton kernels in the interpreter on CPU tensors, against the references: run by test_triton.py in a process of
its own (``TRITON_INTERPRET=1 python -m tests.kernels.interpreted NAME``)."""

import itertools
import sys

import torch

from kernels.cdc import cuda as cdc_cuda
from kernels.cdc import reference as cdc_reference
from kernels.clip import contour_band
from kernels.clip import cuda as clip_cuda
from kernels.clip import reference as clip_reference
from kernels.lbp import cuda as lbp_cuda
from kernels.lbp import reference as lbp_reference
from kernels.topk import cuda as topk_cuda
from kernels.topk import reference as topk_reference


def lbp() -> None:
    images = [
        torch.randint(0, 256, (2, 5, 41), dtype=torch.uint8),
        torch.randint(100, 103, (1, 18, 20), dtype=torch.uint8),  # ties, two blocks of rows
        torch.randint(100, 103, (1, 3, 530), dtype=torch.uint8),  # three blocks of columns, past 512
        torch.full((1, 1, 1), 4, dtype=torch.uint8),
        torch.randint(0, 9, (1, 5, 7), dtype=torch.uint8).transpose(1, 2),
        torch.zeros(0, 4, 4, dtype=torch.uint8),
    ]
    for image, method in itertools.product(images, lbp_reference.METHODS):
        codes = lbp_cuda.local_binary_pattern(image, method)
        assert torch.equal(codes, lbp_reference.local_binary_pattern(image, method)), (image.shape, method)


def clip_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    levels = torch.randint(0, 256, shape)
    levels[..., : shape[-1] // 3] = levels[..., : shape[-1] // 3] // 128 * 255
    noises = [(torch.randn(shape) * 5 / 255).to(dtype) for _ in range(2)]
    mask = (torch.rand(shape[0], 1, *shape[2:]) > 0.2).to(torch.uint8)
    return (levels / 255).to(dtype), *noises, mask


def clip() -> None:
    eps = 4 / 255
    shapes = [(2, 1, 5, 35), (1, 3, 17, 6), (1, 3, 1, 1), (0, 1, 4, 4), (1, 6, 3, 3)]
    dtypes = (torch.float32, torch.float64, torch.float16)
    for (shape, kind), dtype in zip(itertools.product(shapes, clip_reference.CLIPS), itertools.cycle(dtypes)):
        x, c, t, mask = clip_inputs(shape, dtype)
        grad = torch.randn(shape).to(dtype)
        soft = torch.rand(mask.shape)
        maps = [(None, None, soft if shape[1] == 6 else None)]
        if dtype == torch.float32:
            maps += [(contour_band(mask, 2), None, soft), (None, mask, soft)]
        for given in maps:
            band = 1 if shape[0] == 2 else 2
            arguments = (x, c, t, mask, *given, eps, band, "uniform" if shape[1] == 3 else "default")
            out, packed = clip_cuda.lbp_adaptive_clip(*arguments, kind, True)
            expected, bits = torch.ops.medveil.lbp_adaptive_clip(*arguments, kind, True)
            tolerance = {torch.float64: 1e-8, torch.float32: 2e-7, torch.float16: 2e-3}[dtype]
            torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
            if kind == "tanh":
                ours = clip_cuda.tanh_backward(grad, *arguments)
                theirs = torch.ops.medveil.lbp_adaptive_clip_tanh_backward(grad, *arguments)
                tolerance *= 10
            else:
                if dtype == torch.float32:
                    assert torch.equal(packed, bits), (shape, kind)
                ours = clip_cuda.packed_backward(grad, bits)
                theirs = torch.ops.medveil.lbp_adaptive_clip_packed_backward(grad, bits)
                tolerance = 0
            for mine, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    x, c, t, mask = clip_inputs((2, 3, 3, 7), torch.float32)
    last = x.to(memory_format=torch.channels_last)
    plain = clip_cuda.lbp_adaptive_clip(x, c, t, mask, None, None, None, eps, 1, "default", "hard", True)
    strided = clip_cuda.lbp_adaptive_clip(last, c, t, mask, None, None, None, eps, 1, "default", "hard", True)
    assert strided[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain[0], strided[0]) and torch.equal(plain[1], strided[1])


def topk() -> None:
    topk_cuda.LONGEST_ROW, topk_cuda.BLOCK = 100, 128  # rows of more than 100 take the way of long rows
    shapes = [(2, 4, 8), (1, 3, 4, 27), (1, 1), (0, 5)]
    dtypes = (torch.float32, torch.float16, torch.float64, torch.int8)
    options = itertools.cycle([("abs", 0.1), ("signed", 0.5), ("abs", 1.0), ("signed", 0.0), ("abs", 1 / 3)])
    for (shape, dtype), ties in zip(itertools.product(shapes, dtypes), itertools.cycle((False, True, True))):
        rank, fraction = next(options)
        grad = (torch.randn(shape) * (2 if ties else 40)).round().to(dtype)
        if not ties and dtype.is_floating_point:
            grad = torch.randn(shape).to(dtype)
        for by in ("element", "pixel") if len(shape) == 4 else ("element",):
            mask = topk_cuda.topk_mask(grad, fraction, by, rank)
            assert torch.equal(mask, topk_reference.topk_mask(grad, fraction, by, rank)), (shape, dtype, ties, by, rank)
            if dtype != torch.int8:
                x, noise = torch.rand(shape), torch.rand(shape) / 10 - 0.05
                support = torch.rand(shape) > 0.7 if ties else None
                arguments = (noise, grad, x, fraction, 0.01, 0.04, support, by, rank)
                ours = topk_cuda.topk_masked_step(*arguments)
                torch.testing.assert_close(ours, topk_reference.topk_masked_step(*arguments), rtol=0, atol=1e-8)
    assert not topk_cuda.nan_seen(torch.device("cpu"))
    for n in (8, 300):
        grad = torch.arange(float(n))[None].clone()
        grad[0, 2], grad[0, 3], grad[0, 4] = torch.nan, torch.inf, -torch.inf
        mask = topk_cuda.topk_mask(grad, 3 / n, "element", "abs")
        assert mask.nonzero()[:, 1].tolist() == [3, 4, n - 1]
        assert topk_cuda.nan_seen(torch.device("cpu")) and not topk_cuda.nan_seen(torch.device("cpu"))


def cdc() -> None:
    cdc_cuda.DIRECT.update(PIXELS=16, OUTPUTS=4)
    cdc_cuda.GEMM.update(PIXELS=16, OUTPUTS=16, CHANNELS=16)
    geometries = [([1, 1], [1, 1], [1, 1]), ([2, 1], [1, 2], [2, 1]), ([1, 2], [0, 1], [1, 1])]
    dtypes = itertools.cycle((torch.float32, torch.float64, torch.float16, torch.float32))
    cases = itertools.product((cdc_cuda.direct, cdc_cuda.gemm), geometries)
    for (run, geometry), dtype in zip(cases, dtypes, strict=False):
        channels = 3 if run is cdc_cuda.direct else 18
        x = torch.randn(2, channels, 5, 6).to(dtype)
        if geometry[0] == [1, 1]:
            x = x.to(memory_format=torch.channels_last)
        v, c, bias = torch.randn(5, channels, 3, 3), torch.randn(5, channels, 3, 3), torch.randn(5)
        expected = cdc_reference.cdc_conv2d(x.double(), v.double(), c.double(), bias.double(), *geometry)
        out = run(x, v, c, None if dtype == torch.float16 else bias, *geometry)
        if dtype == torch.float16:
            expected -= bias.double()[:, None, None]
        tolerance = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 0.2}[dtype]
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)
        assert out.stride() == cdc_reference.cdc_conv2d(x, v, c, None, *geometry).stride()


if __name__ == "__main__":
    torch.manual_seed(0)
    globals()[sys.argv[1]]()
    print("passed", sys.argv[1])
