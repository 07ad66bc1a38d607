"""What a thief does to the files before training, made differentiable: one thing a step, more of it as the fit goes on.

Each function takes float [N, C, H, W] in [0, 1], draws uniform in [0, 1), and its strength in [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medveil import keyed
from medveil.veil.jpeg import jpeg, rounded

RESIZERS: Mapping[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "pillow": lambda x, size: F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True),
    "area": lambda x, size: F.interpolate(x, size=size, mode="area"),
    "bilinear": lambda x, size: F.interpolate(x, size=size, mode="bilinear", align_corners=False),
    "cubic": lambda x, size: F.interpolate(x, size=size, mode="bicubic", align_corners=False),
}
"""Pillow's bilinear (antialiased), the mean over areas, and bilinear and cubic without antialiasing."""


def pipeline(x: Tensor, seed: int, step: int, strength: float, keys: Tensor) -> Tensor:
    """``x`` after the thief's step that ``seed`` and ``step`` draw; all ranks draw the same. ``keys``: int64 [N]."""
    u = keyed.uniform(seed, "veil pipeline", step, torch.zeros(1, dtype=torch.int64), (4,))[0].tolist()
    name = list(STEPS)[int(u[0] * len(STEPS))]
    if name == "noise":
        grain = keyed.uniform(seed, "veil grain", step, keys, x.shape[1:])
        return (x + strength * _GRAIN * (2 * grain - 1)).clamp(0, 1)
    return STEPS[name](x, u[1:], strength)


def _saved(x: Tensor) -> Tensor:
    """As it is after saving: whole grey levels, within 0 and 255."""
    return rounded(x * 255).clamp(0, 255) / 255


def _blur(x: Tensor, u: Sequence[float], strength: float) -> Tensor:
    """Binomial 3 x 3, of which a milder one is a weaker neighbour: (s 2 s) / (2 + 2 s)."""
    line = torch.tensor([strength, 2.0, strength], device=x.device) / (2 + 2 * strength)
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return _saved(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1]))


def _jpeg(x: Tensor, u: Sequence[float], strength: float) -> Tensor:
    """Of a quality from 95 down to, at full strength, 10."""
    return jpeg(x, round(95 - 85 * strength * u[0]), subsample=u[1] < 0.5)


def _resize(x: Tensor, u: Sequence[float], strength: float) -> Tensor:
    """Down to a share of the side, half at full strength, and up again."""
    size = (x.shape[-2], x.shape[-1])
    share = 1 - strength * u[0] / 2
    small = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
    resizer = list(RESIZERS)[int(u[1] * len(RESIZERS))]
    up = "bilinear" if resizer == "area" else resizer  # the area resizer only repeats pixels then
    return _saved(RESIZERS[up](_saved(RESIZERS[resizer](x, small)), size))


def _gamma(x: Tensor, u: Sequence[float], strength: float) -> Tensor:
    """x ** g, g from 1/2 to 2 at full strength. Black has no gradient of its own there and is kept off it."""
    return _saved(x.clamp_min(1 / 510) ** (4.0 ** (strength * (u[0] - 0.5))))


def _contrast(x: Tensor, u: Sequence[float], strength: float) -> Tensor:
    """The distance from an image's mean, times 1/2 to 3/2 at full strength."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return _saved(mean + (1 + strength * (u[0] - 0.5)) * (x - mean))


def _zscore(x: Tensor, u: Sequence[float], strength: float) -> Tensor:
    """Mean 0 and deviation 1 in each image, mixed with the image itself by ``strength``."""
    mean, deviation = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
    return x + strength * ((x - mean) / (deviation + 1 / 255) - x)


_GRAIN = 4 / 255
STEPS: Mapping[str, Callable[[Tensor, Sequence[float], float], Tensor]] = {
    "blur": _blur,
    "jpeg": _jpeg,
    "resize": _resize,
    "gamma": _gamma,
    "contrast": _contrast,
    "zscore": _zscore,
    "noise": lambda x, u, strength: x,
}
