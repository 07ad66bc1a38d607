import itertools

import pytest
import torch

from medveil.kernels import contour_band, lbp_adaptive_clip, texture_map
from medveil.kernels.clip import reference

EPS = 4 / 255


def inputs(device, channels=3, size=(9, 8), batch=2, dtype=torch.float64):
    """Image, noises on both sides of their bounds, and a mask with background, band and inside."""
    levels = torch.randint(0, 256, (batch, channels, *size), device=device)
    levels[:, :, :2] = 0
    levels[:, :, 2:3] = 255
    noises = [
        (torch.randn(batch, channels, *size, device=device, dtype=dtype) * EPS).requires_grad_() for _ in range(2)
    ]
    mask = torch.zeros(batch, 1, *size, dtype=torch.uint8, device=device)
    mask[:, :, 1:, 2:] = 1
    return levels.to(dtype) / 255, *noises, mask


def equations_4_to_6(x, contour_noise, texture_noise, mask, eps, clip, band=1, lbp="default"):
    """As METHODS states them, with autograd's own derivatives."""
    y_c = contour_band(mask, band).to(x.dtype)
    y_t = (1 - y_c) * mask
    bound_c, bound_t = eps * y_c, eps * texture_map(x, lbp).to(x.dtype) * y_t
    if clip == "tanh":
        return (x + bound_c * torch.tanh(contour_noise / eps) + bound_t * torch.tanh(texture_noise / eps)).clamp(0, 1)
    delta_c = (contour_noise * y_c).clamp(-eps, eps)
    # In two steps: torch's clamp with tensor bounds lets the gradient through where a bound of zero meets a zero.
    delta_t = torch.where(texture_noise.abs() <= bound_t, texture_noise, bound_t * texture_noise.sign())
    hard = (x + delta_c + delta_t).clamp(0, 1)
    if clip == "hard":
        return hard
    through = contour_noise * y_c + texture_noise * (bound_t > 0)
    return hard.detach() + through - through.detach()


@pytest.mark.parametrize("clip", reference.CLIPS)
def test_equals_the_equations_with_their_gradients(device, clip):
    for lbp, channels in itertools.product(("default", "ror", "uniform"), (1, 3)):
        x, c, t, mask = inputs(device, channels)
        out = lbp_adaptive_clip(x, c, t, mask, EPS, clip=clip, lbp=lbp)
        expected = equations_4_to_6(x, c, t, mask, EPS, clip, lbp=lbp)
        torch.testing.assert_close(out, expected)
        upstream = torch.randn_like(out)
        for mine, other in zip(
            torch.autograd.grad(out, (c, t), upstream), torch.autograd.grad(expected, (c, t), upstream), strict=True
        ):
            torch.testing.assert_close(mine, other)
            assert mine.any()


@pytest.mark.parametrize("clip", ["hard", "tanh"])
def test_gradcheck(device, clip):
    x, c, t, mask = inputs(device, channels=2, size=(3, 5), batch=1)
    texture = torch.rand(1, 1, 3, 5, device=device, dtype=torch.float64) + 0.2
    assert torch.autograd.gradcheck(
        lambda c, t: lbp_adaptive_clip(x, c, t, mask, EPS, texture=texture, clip=clip), (c, t), eps=1e-7, atol=1e-4
    )


@pytest.mark.parametrize("clip", reference.CLIPS)
def test_bounds_support_and_range(device, clip):
    x, c, t, mask = inputs(device, size=(40, 30), dtype=torch.float32)
    out = lbp_adaptive_clip(x, c * 100, t * 100, mask, EPS, clip=clip).detach()
    change = (out - x).abs()
    assert change.max() <= EPS + 1e-6 and out.min() >= 0 and out.max() <= 1
    outside = (mask == 0) & ~contour_band(mask, 1)
    assert change[outside.expand_as(x)].max() == 0
    inside = (mask == 1) & ~contour_band(mask, 1)
    limit = (EPS * texture_map(x)).expand_as(x)[inside.expand_as(x)]
    assert (change[inside.expand_as(x)] <= limit + 1e-6).all()


def test_maps_may_be_given(device):
    x, c, t, mask = inputs(device, dtype=torch.float32)
    band = contour_band(mask, 2)
    roi = (mask == 1) & ~band
    computed = lbp_adaptive_clip(x, c, t, mask, EPS, band=2)
    for dtype in (torch.bool, torch.uint8, torch.float32):
        maps = {"contour": band.to(dtype), "roi": roi.to(dtype), "texture": texture_map(x)}
        assert torch.equal(lbp_adaptive_clip(x, c, t, mask, EPS, **maps), computed)
        # The region that is left to texture depends on the contour that was given.
        assert torch.equal(lbp_adaptive_clip(x, c, t, mask, EPS, contour=maps["contour"]), computed)


def test_more_channels_than_a_byte_holds(device):
    x, c, t, mask = inputs(device, channels=6)
    texture = torch.rand(2, 1, 9, 8, device=device)
    out = lbp_adaptive_clip(x, c, t, mask, EPS, texture=texture)
    ours = torch.autograd.grad(out.sum(), (c, t))
    y_c = contour_band(mask, 1)
    maps = y_c, (~y_c) * mask, texture
    theirs = reference.adaptive_clip_backward(torch.ones_like(x), x, c, t, *maps, EPS, "hard")
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("clip", reference.CLIPS)
def test_opcheck(device, clip):
    for batch in (2, 0):
        x, c, t, mask = inputs(device, batch=batch, dtype=torch.float32)
        x = x.to(memory_format=torch.channels_last)
        arguments = (x, c, t, mask, None, None, None, EPS, 1, "default", clip, True)
        torch.library.opcheck(torch.ops.medveil.lbp_adaptive_clip.default, arguments)


@pytest.mark.parametrize("clip", reference.CLIPS)
def test_layouts_and_compile(device, clip):
    x, c, t, mask = inputs(device, dtype=torch.float32)
    plain = lbp_adaptive_clip(x, c, t, mask, EPS, clip=clip)
    upstream = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (c, t), upstream)
    last = x.to(memory_format=torch.channels_last)
    every_other = x.repeat_interleave(2, dim=3)[..., ::2]
    compiled = torch.compile(lbp_adaptive_clip, fullgraph=True, backend="aot_eager")
    for function, image in ((lbp_adaptive_clip, last), (lbp_adaptive_clip, every_other), (compiled, last)):
        assert torch.equal(image, x) and not image.is_contiguous()
        out = function(image, c, t, mask, EPS, clip=clip)
        torch.testing.assert_close(out, plain)
        last_upstream = upstream.to(memory_format=torch.channels_last)
        for mine, other in zip(torch.autograd.grad(out, (c, t), last_upstream), expected, strict=True):
            torch.testing.assert_close(mine, other)


def test_contour_band(device):
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.uint8, device=device)
    mask[0, 0, 3:7, 3:] = 1  # cut by the right edge
    band = contour_band(mask, 1)[0, 0].int()
    expected = torch.zeros(9, 9, dtype=torch.int32, device=device)
    expected[2:8, 2:] = 1
    expected[4:6, 4:] = 0  # the erosion: the edge of the image is no contour
    assert torch.equal(band, expected)
    assert not contour_band(mask, 0).any()
    assert not contour_band(torch.ones_like(mask), 3).any()
    assert contour_band(mask, 20).all()
    assert contour_band(mask[:0], 1).shape == (0, 1, 9, 9)


def test_mistakes():
    x = torch.rand(1, 3, 4, 4)
    mask = torch.ones(1, 1, 4, 4)
    for change, message in (
        ({"clip": "soft"}, "clip must be one of"),
        ({"lbp": "var"}, "lbp must be one of"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eps": 4.0}, "at most 1"),  # grey levels
        ({"mask": mask[0]}, "mask must be"),
        ({"texture_noise": x[:, :1]}, "of one shape"),
        ({"x": torch.rand(1, 3, 4, 4, requires_grad=True)}, "detach"),
    ):
        arguments = {"x": x, "contour_noise": x, "texture_noise": x, "mask": mask, "eps": EPS} | change
        with pytest.raises(ValueError, match=message):
            lbp_adaptive_clip(**arguments)
