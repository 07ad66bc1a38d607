"""Error budgets: an operator may err, against the same in fp64, by what eager PyTorch errs in the operator's dtype and
eps sqrt(terms) times the size of the partial sums more: each of the additions rounds what has been added up so far,
which is as large as the largest result.

``operators`` holds what is judged, by the names under ``torch.ops.medveil``: the public operators on some device, or
the kernels' launchers in the interpreter.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from medveil.kernels import contour_band, texture_map
from medveil.kernels.cdc import reference as cdc_reference
from medveil.kernels.clip import reference as clip_reference
from medveil.kernels.topk import reference as topk_reference

Operators = Mapping[str, Callable[..., Any]]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EPS = 4 / 255
UNIT, STRIDED = ([1, 1], [1, 1], [1, 1]), ([2, 1], [1, 2], [1, 2])  # stride, padding, dilation


def assert_within_budget(ours: Tensor, eager: Tensor, exact: Tensor, terms: int, unit: float = 1.0) -> None:
    """``terms`` are summed for each element, to partial sums of at least ``unit``."""
    assert ours.dtype == eager.dtype and ours.shape == exact.shape
    assert torch.equal(ours.isfinite(), exact.isfinite())
    error, theirs = (
        (found.double() - exact).nan_to_num().abs().max().item() if exact.numel() else 0 for found in (ours, eager)
    )
    reached = max(unit, exact.nan_to_num(posinf=0, neginf=0).abs().max().item()) if exact.numel() else unit
    allowed = theirs + torch.finfo(ours.dtype).eps * terms**0.5 * reached
    assert error <= allowed, f"an error of {error:.3g} for {ours.dtype}, eager {theirs:.3g}, allowed {allowed:.3g}"


def doubled(*tensors: Tensor) -> list[Tensor]:
    return [t.double() for t in tensors]


def strides(tensor: Tensor) -> list[int]:
    """Those that mean something."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def cdc(operators: Operators, device: torch.device, dtype: torch.dtype) -> None:
    """Outputs, sums and gradients: a stem and a wide layer, odd sizes, one sample, one pixel and none, strides."""
    cases = [((2, 3, 7, 9), UNIT), ((1, 1, 1, 1), UNIT), ((2, 18, 5, 6), UNIT), ((3, 20, 6, 5), STRIDED)]
    cases += [((0, 3, 4, 4), UNIT), ((2, 2, 5, 7), STRIDED)]
    for (shape, geometry), last in zip(cases, itertools.cycle((False, True, True, False)), strict=False):
        outputs, channels = 5, shape[1]
        layout = torch.channels_last if last else torch.contiguous_format
        x = torch.randn(*shape[:3], 2 * shape[3], device=device)[..., ::2].to(dtype)  # every other column
        x = x.to(memory_format=layout) if last else x
        v, c = (torch.randn(outputs, channels, 3, 3, device=device).to(dtype) / 4 for _ in range(2))
        v, c = v.to(memory_format=layout), c if channels % 2 else c.to(memory_format=layout)
        bias = torch.randn(outputs, device=device).to(dtype)
        exact = cdc_reference.cdc_conv2d(*doubled(x, v, c, bias), *geometry)
        eager = cdc_reference.naive_cdc_conv2d(x, v, c, bias, *geometry)
        out, folded = operators["cdc_conv2d"](x, v, c, bias, *geometry)
        assert strides(out) == strides(cdc_reference.cdc_conv2d(x, v, c, bias, *geometry))
        assert_within_budget(out, eager, exact, 9 * channels)
        positions = out.numel() // outputs
        got, sums, _ = operators["cdc_conv2d_stats"](x, v, c, None, *geometry, last)  # every other one with a ReLU
        plain = cdc_reference.cdc_conv2d_stats(x, v, c, None, *geometry, last)
        precise = cdc_reference.cdc_conv2d_stats(*doubled(x, v, c), None, *geometry, last)
        assert_within_budget(got, plain[0], precise[0], 9 * channels)
        stored = got.double()
        of_stored = torch.stack([stored.sum((0, 2, 3)), stored.square().sum((0, 2, 3))])
        assert_within_budget(sums, of_stored.float(), of_stored, positions)
        grad = torch.randn(out.shape, device=device).to(dtype)
        ours = operators["cdc_conv2d_backward"](grad, x, folded, v, c, *geometry, [True] * 3)
        eager_grads = cdc_reference.cdc_conv2d_backward(grad, x, v, c, *geometry, [True] * 3)
        exact_grads = cdc_reference.cdc_conv2d_backward(*doubled(grad, x, v, c), *geometry, [True] * 3)
        terms = (9 * outputs, positions, positions, positions)
        for mine, other, truth, count in zip(ours, eager_grads, exact_grads, terms, strict=True):
            assert strides(mine) == strides(other)
            assert_within_budget(mine, other, truth, count)
        assert not any(
            g.numel() for g in operators["cdc_conv2d_backward"](grad, x, folded, v, c, *geometry, [False] * 3)
        )


def cdc_propagates_nan_and_inf(operators: Operators, device: torch.device, *numbers: int) -> None:
    """Nine outputs see a pixel, the others must not (a library's Winograd form does not keep to that)."""
    for channels in numbers:
        x = torch.randn(1, channels, 6, 7, device=device)
        x[0, 0, 3, 3], x[0, 0, 0, 6] = torch.nan, torch.inf
        v, c = (torch.randn(2, channels, 3, 3, device=device) for _ in range(2))
        out = operators["cdc_conv2d_stats"](x, v, c, None, *UNIT, True)[0]
        seen = torch.zeros(6, 7, dtype=torch.bool, device=device)
        seen[2:5, 2:5] = True
        assert torch.equal(out[0, 0].isnan() & seen, seen)
        seen[:2, 5:] = True
        assert out[0, :, ~seen].isfinite().all()


def clip(operators: Operators, device: torch.device, dtype: torch.dtype) -> None:
    """Forward the straight-through clip is the hard one, and backward it does no arithmetic."""
    for shape, kind in itertools.product([(1, 3, 5, 7), (1, 1, 1, 1)], ("hard", "tanh")):
        levels = torch.randint(0, 256, shape, device=device)
        levels[..., : shape[-1] // 3] = levels[..., : shape[-1] // 3] // 128 * 255
        x = (levels / 255).to(dtype)
        c, t = ((torch.randn(shape, device=device) * EPS).to(dtype) for _ in range(2))
        c.view(-1)[::7], t.view(-1)[::5] = torch.inf, -torch.inf
        mask = (torch.rand(shape[0], 1, *shape[2:], device=device) > 0.2).to(torch.uint8)
        contour = contour_band(mask, 1)
        maps = contour, (~contour) * mask, texture_map(x)
        computed = (mask, None, None, None, EPS, 1, "default")
        out = operators["lbp_adaptive_clip"](x, c, t, *computed, kind, True)[0]
        eager = clip_reference.adaptive_clip(x, c, t, *maps, EPS, kind)
        exact = clip_reference.adaptive_clip(*doubled(x, c, t), *maps, EPS, kind)
        assert_within_budget(out, eager, exact, 3)
        if kind == "tanh":
            grad = (torch.rand(shape, device=device) * 2 - 1).to(dtype)
            ours = operators["lbp_adaptive_clip_tanh_backward"](grad, x, c, t, *computed)
            eager_grads = clip_reference.adaptive_clip_backward(grad, x, c, t, *maps, EPS, kind)
            exact_grads = clip_reference.adaptive_clip_backward(*doubled(grad, x, c, t), *maps, EPS, kind)
            # Where x + delta meets 0 or 1 within rounding, the gradient may pass or not.
            edge = (exact == 0) | (exact == 1) | (eager == 0) | (eager == 1)
            for mine, other, truth in zip(ours, eager_grads, exact_grads, strict=True):
                assert_within_budget(*(g.masked_fill(edge, 0) for g in (mine, other, truth)), 3)


def clip_propagates_nan(operators: Operators, device: torch.device) -> None:
    for kind in clip_reference.CLIPS:
        noise = torch.zeros(1, 1, 5, 5, device=device)
        noise[0, 0, 2, 3] = torch.nan
        x, mask = torch.full_like(noise, 0.5), torch.ones(1, 1, 5, 5, dtype=torch.uint8, device=device)
        maps = None, None, torch.ones_like(x)
        out = operators["lbp_adaptive_clip"](x, noise, noise, mask, *maps, EPS, 1, "default", kind, False)[0]
        assert torch.equal(out.isnan(), noise.isnan()), kind


def step(operators: Operators, device: torch.device, dtype: torch.dtype) -> None:
    """The selection is exact in any dtype, so only the arithmetic of the step may differ."""
    radius = 8 / 255
    for shape, fraction in itertools.product([(2, 3, 5, 7), (1, 1)], (0.0, 0.1, 1.0)):
        noise = ((torch.rand(shape, device=device) * 2 - 1) * radius).to(dtype)
        grad, x = torch.randn(shape, device=device).to(dtype), torch.rand(shape, device=device).to(dtype)
        rest = fraction, 1.6 / 255, radius, None, "element", "abs"
        out = operators["topk_masked_step"](noise, grad, x, *rest)
        eager = topk_reference.topk_masked_step(noise, grad, x, *rest)
        exact = topk_reference.topk_masked_step(*doubled(noise, grad, x), *rest)
        assert_within_budget(out, eager, exact, 2, radius)
