"""The Triton kernels in the interpreter on CPU tensors, against the references: run by test_triton.py in a process of
its own (``TRITON_INTERPRET=1 python -m tests.kernels.interpreted NAME ...``)."""

import itertools
import sys

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from medveil.kernels.cdc import choices, ops
from medveil.kernels.cdc import cuda as cdc_cuda
from medveil.kernels.cdc import launchers as cdc_launchers
from medveil.kernels.cdc import reference as cdc_reference
from medveil.kernels.clip import contour_band
from medveil.kernels.clip import cuda as clip_cuda
from medveil.kernels.clip import reference as clip_reference
from medveil.kernels.draws import cuda as draws_cuda
from medveil.kernels.draws import reference as draws_reference
from medveil.kernels.folding import cuda as folding_cuda
from medveil.kernels.lbp import cuda as lbp_cuda
from medveil.kernels.lbp import reference as lbp_reference
from medveil.kernels.topk import cuda as topk_cuda
from medveil.kernels.topk import reference as topk_reference
from tests.kernels import accuracy


def lbp() -> None:
    """What a method makes of a pattern knows nothing of the image: every method on one image, every image once."""
    lbp_cuda.ROWS = 4
    images = [
        torch.randint(0, 256, (2, 5, 41), dtype=torch.uint8),  # two blocks of rows, two of columns
        torch.randint(100, 103, (1, 6, 20), dtype=torch.uint8),  # ties
        torch.randint(100, 103, (1, 3, 530), dtype=torch.uint8),  # past 512
        torch.full((1, 1, 1), 4, dtype=torch.uint8),
        torch.randint(0, 9, (1, 5, 7), dtype=torch.uint8).transpose(1, 2),
        torch.zeros(0, 4, 4, dtype=torch.uint8),
    ]
    whole = torch.randint(0, 256, (1, 3, 68), dtype=torch.uint8)
    cases = [*((whole, method) for method in lbp_reference.METHODS), *((image, "default") for image in images)]
    for image, method in cases:
        lbp_cuda.LANES = 256 if image.shape[2] > 512 else 32  # a program each costs as much, however many lanes it has
        codes = lbp_cuda.local_binary_pattern(image, method)
        assert torch.equal(codes, lbp_reference.local_binary_pattern(image, method)), (image.shape, method)


def clip_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    levels = torch.randint(0, 256, shape)
    levels[..., : shape[-1] // 3] = levels[..., : shape[-1] // 3] // 128 * 255
    noises = [(torch.randn(shape) * 5 / 255).to(dtype) for _ in range(2)]
    mask = (torch.rand(shape[0], 1, *shape[2:]) > 0.2).to(torch.uint8)
    return (levels / 255).to(dtype), *noises, mask


def clip() -> None:
    eps, clip_cuda.WALK["ROWS"], clip_cuda.WALK_TANH["ROWS"] = 4 / 255, 4, 4
    shapes = [(1, 3, 6, 6), (1, 3, 1, 1), (0, 1, 4, 4), (1, 6, 3, 3)]
    # Several blocks of columns, of one pixel a lane and of four: what becomes of a pixel then knows nothing of them.
    wide = [((2, 1, 3, 35), "hard"), ((1, 1, 3, 132), "tanh"), ((1, 1, 3, 132), "hard")]
    cases = [*itertools.product(shapes, clip_reference.CLIPS), *wide]
    dtypes = (torch.float32, torch.float64, torch.float16)
    for (shape, kind), dtype in zip(cases, itertools.cycle(dtypes)):
        x, c, t, mask = clip_inputs(shape, dtype)
        grad = torch.randn(shape).to(dtype)
        soft = torch.rand(mask.shape)
        maps = [(None, None, soft if shape[1] == 6 else None)]
        if dtype == torch.float32:
            maps += [(contour_band(mask, 2), None, soft), (None, mask, soft)]
        for given in maps:
            band = 1 if shape[0] == 2 else 2
            arguments = (x, c, t, mask, *given, eps, band, "uniform" if shape[1] == 3 else "default")
            inputs = clip_reference.Inputs(*arguments)
            out, packed = clip_cuda.lbp_adaptive_clip(inputs, kind, True)
            expected, bits = torch.ops.medveil.lbp_adaptive_clip(*arguments, kind, True)
            tolerance = {torch.float64: 1e-8, torch.float32: 2e-7, torch.float16: 2e-3}[dtype]
            torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
            if kind == "tanh":
                ours = clip_cuda.tanh_backward(grad, inputs)
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
    inputs = clip_reference.Inputs(x, c, t, mask, None, None, None, eps, 1, "default")
    plain = clip_cuda.lbp_adaptive_clip(inputs, "hard", True)
    strided = clip_cuda.lbp_adaptive_clip(inputs._replace(x=last), "hard", True)
    assert strided[0].is_contiguous(memory_format=torch.channels_last)
    given = inputs._replace(contour=contour_band(mask, 1), texture=torch.rand(mask.shape))
    flat = [clip_cuda.lbp_adaptive_clip(i, "hard", True) for i in (given, given._replace(x=last))]
    assert all(torch.equal(one, other) for one, other in zip(*flat, strict=True))
    upstream = torch.randn(2, 3, 3, 7)
    grads = [
        clip_cuda.packed_backward(g, flat[0][1]) for g in (upstream, upstream.to(memory_format=torch.channels_last))
    ]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    assert torch.equal(plain[0], strided[0]) and torch.equal(plain[1], strided[1])
    operators = {
        "lbp_adaptive_clip": lambda *a: clip_cuda.lbp_adaptive_clip(clip_reference.Inputs(*a[:-2]), *a[-2:]),
        "lbp_adaptive_clip_tanh_backward": lambda grad, *a: clip_cuda.tanh_backward(grad, clip_reference.Inputs(*a)),
    }
    clip_cuda.WALK["ROWS"] = clip_cuda.WALK_TANH["ROWS"] = 8  # one program, no halo between two
    for dtype in accuracy.DTYPES:
        accuracy.clip(operators, torch.device("cpu"), dtype)
    accuracy.clip_propagates_nan(operators, torch.device("cpu"))


def topk() -> None:
    topk_cuda.LONGEST_ROW, topk_cuda.LANE = 100, 1  # rows of more than 100 are long
    topk_cuda.LONG["BLOCK"], topk_cuda.SAMPLES, topk_cuda.PROGRAMS = 128, {1 << 31: (128, 64)}, 1
    shapes = [(2, 4, 8), (1, 3, 4, 27), (1, 1), (0, 5)]
    dtypes = (torch.float32, torch.float16, torch.float64, torch.int8)
    options = itertools.cycle([("abs", 0.1), ("signed", 0.5), ("abs", 1.0), ("signed", 0.0), ("abs", 1 / 3)])
    for (shape, dtype), ties in zip(itertools.product(shapes, dtypes), itertools.cycle((False, True, True))):
        rank, fraction = next(options)
        grad = (torch.randn(shape) * (2 if ties else 40)).round().to(dtype)
        if not ties and dtype.is_floating_point:
            grad = torch.randn(shape).to(dtype)
        for by in ("pixel",) if len(shape) == 4 and dtype != torch.float16 else ("element",):
            mask = topk_cuda.topk_mask(grad, fraction, by, rank)
            assert torch.equal(mask, topk_reference.topk_mask(grad, fraction, by, rank)), (shape, dtype, ties, by, rank)
            if dtype != torch.int8:
                x, noise = torch.rand(shape), torch.rand(shape) / 10 - 0.05
                support = torch.rand(shape) > 0.7 if ties else None
                arguments = (noise, grad, x, fraction, 0.01, 0.04, support, by, rank)
                ours = topk_cuda.topk_masked_step(*arguments)
                torch.testing.assert_close(ours, topk_reference.topk_masked_step(*arguments), rtol=0, atol=1e-8)
    for dtype in (torch.float32, torch.float16):  # the interpreter compares bf16 as integers
        accuracy.step({"topk_masked_step": topk_cuda.topk_masked_step}, torch.device("cpu"), dtype)
    assert not topk_cuda.nan_seen(torch.device("cpu"))
    for n in (8, 300):
        grad = torch.arange(float(n))[None].clone()
        grad[0, 2], grad[0, 3], grad[0, 4] = torch.nan, torch.inf, -torch.inf
        mask = topk_cuda.topk_mask(grad, 3 / n, "element", "abs")
        assert mask.nonzero()[:, 1].tolist() == [3, 4, n - 1]
        assert topk_cuda.nan_seen(torch.device("cpu")) and not topk_cuda.nan_seen(torch.device("cpu"))


def draws() -> None:
    draws_cuda.BLOCK = 16
    keys = torch.tensor([0, 1, 2**62 + 12345, 2**63 - 1, 0xFFFFFFFF])
    steps = torch.tensor([0, 7, 2**32 - 1, 2**40 + 3])
    for (low, high), count in (((0xFFFFFFFF, 0x89ABCDEF), 3), ((5, 0), 9), ((0, 0), 1)):
        words = draws_cuda.philox_words(keys, steps, low, high, count)
        assert torch.equal(words, draws_reference.philox_words(keys, steps, low, high, count))
    for (shape, draws, padding), flip in itertools.product([((2, 3, 5, 7), 3, 2), ((3, 1, 4, 4), 1, 0)], (True, False)):
        x, moves = torch.randn(shape), torch.randint(0, 2**32, (shape[0] * draws, 3))
        for given in (x, x.to(memory_format=torch.channels_last)):
            moved = draws_cuda.flip_shift(given, moves, padding, flip)
            assert torch.equal(moved, draws_reference.flip_shift(x, moves, padding, flip))
            grads = [
                of.flip_shift_backward(moved, moves, shape[0], padding, flip) for of in (draws_cuda, draws_reference)
            ]
            torch.testing.assert_close(*grads)
            assert grads[0].is_contiguous()


def norms() -> None:
    convs = [nn.Conv2d(3, 5, 3, bias=False), nn.Conv2d(5, 4, 1).to(memory_format=torch.channels_last)]
    bns = [nn.BatchNorm2d(5), nn.BatchNorm2d(4, affine=False, eps=1e-2)]
    for norm in bns:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
        layers, expected = [], []
        for conv, norm in zip(convs, bns, strict=True):
            given = conv.weight.detach(), conv.bias, norm.running_mean, norm.running_var
            results = torch.empty_like(given[0], dtype=dtype), torch.empty(len(given[0]), dtype=dtype)
            layers.append((folding_cuda.Layer(*given, norm.weight, norm.bias, *results), norm.eps))
            expected.append(fuse_conv_bn_weights(*given, norm.eps, norm.weight, norm.bias))
        assert folding_cuda.takes(layers)
        folder = folding_cuda.FoldedNorms(layers)
        folder()
        assert folder.still(layers) and not folder.still(layers[1:])
        for (layer, _), both in zip(layers, expected, strict=True):
            for found, wanted in zip(layer[-2:], both, strict=True):
                torch.testing.assert_close(found, wanted.detach().to(dtype), rtol=tolerance, atol=tolerance)


def cdc() -> None:
    for tile in (
        cdc_launchers.STEM,
        cdc_launchers.STEM_IEEE,
        cdc_launchers.STEM_WEIGHT,
        cdc_launchers.STEM_WEIGHT_FP32,
    ):
        tile.update(ROWS=2, COLUMNS=8)
    cdc_launchers.GEMM.update(OUTPUTS=16, CHANNELS=16)
    cdc_launchers.FOLD.update(BLOCK=16)
    cdc_launchers.UNFOLD_PIECES.update(SPLITS=2)
    cdc_launchers.PROGRAMS = 3  # several pieces even of few pixels
    device = torch.device("cpu")
    operators = {name: getattr(cdc_cuda, name) for name in ("cdc_conv2d", "cdc_conv2d_stats", "cdc_conv2d_backward")}
    wide_too = False

    def choose(what: str, channels: int, dtype: torch.dtype) -> str:
        if dtype == torch.bfloat16:  # the interpreter's product takes it for integers; test_accuracy.py has it on a GPU
            return "library"
        if what == "input":
            return "gemm"
        if channels <= 3 and (what == "weight" or not wide_too):
            return "stem"
        return "gemm" if what == "forward" else "library"

    cdc_cuda.choose = choices.choose = choose
    for dtype in accuracy.DTYPES:
        accuracy.cdc(operators, device, dtype)
    accuracy.cdc_propagates_nan_and_inf(operators, device, 1, 17)
    wide_too = True  # the general product for stems as well
    accuracy.cdc(operators, device, torch.float32)
    # In fp64 the kernels can be told from the equations themselves; twice the same is the same to the bit.
    x, v, c, grad = (torch.randn(s, dtype=torch.float64) for s in [(2, 3, 5, 6), *[(4, 3, 3, 3)] * 2, (2, 4, 5, 6)])
    folded = cdc_cuda.cdc_conv2d(x, v, c, None, *accuracy.UNIT)[1]
    arguments = grad, x, folded, v, c, *accuracy.UNIT, [True] * 3
    ours = cdc_cuda.cdc_conv2d_backward(*arguments)
    theirs = cdc_reference.cdc_conv2d_backward(grad, x, v, c, *accuracy.UNIT, [True] * 3)
    torch.testing.assert_close(ours, theirs)
    again = cdc_cuda.cdc_conv2d_backward(*arguments)
    assert all(torch.equal(one, other) for one, other in zip(ours, again, strict=True))
    # Past the dispatcher as through the operator, where kernels of ours run and where the library does.
    bias = torch.randn(4, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, v, c, bias)]
    expected = ops.cdc_conv2d(*leaves)
    for way in (choose, lambda *_: "library"):
        cdc_cuda.choose = way
        out = ops.direct(*leaves, *accuracy.UNIT)
        torch.testing.assert_close(out, expected)
        grads = (torch.autograd.grad(of, leaves, grad, retain_graph=True) for of in (out, expected))
        torch.testing.assert_close(*grads)
        frozen = ops.direct(x, v.detach(), c, None, *accuracy.UNIT)
        torch.testing.assert_close(
            torch.autograd.grad(frozen.sum(), c), torch.autograd.grad(expected.sum(), c, retain_graph=True)
        )


if __name__ == "__main__":
    for operator in sys.argv[1:]:
        torch.manual_seed(0)
        globals()[operator]()
        print("passed", operator)
