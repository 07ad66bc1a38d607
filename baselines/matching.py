"""Noise scaled until the saved images have a wanted PSNR, so that protectors can be compared at equal visibility."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from medveil.dataset import Batch, Dataset
from medveil.errors import UserError
from medveil.runtime import Runtime, batches, local_slice

CLOSE = 0.005
"""dB by which the mean PSNR may miss what was asked for."""

_CHUNK = 64
_PASSES = 60
_LEAST, _MOST = 1e-3, 1e3
_ROUNDED_AWAY = 0.4

Released = Callable[[Batch, float], Tensor]
"""(samples, scale of their noise) -> the saved images, uint8 [N, C, H, W]."""


def scale_to(psnr: float, data: Dataset, runtime: Runtime, released: Released) -> float:
    """The scale of the noise at which the mean PSNR of the saved images of ``data`` is ``psnr`` dB.

    The mean is over the images that change, as in every table. Raises UserError where no scale gives it.
    """
    scale, least, most = 1.0, _LEAST, _MOST
    for _ in range(_PASSES):
        found = _mean_psnr(scale, data, runtime, released)
        if abs(found - psnr) < CLOSE:
            return scale
        least, most = (scale, most) if found > psnr else (least, scale)
        # The energy grows about with the square of the scale; where rounding makes that a bad guess, halve the range.
        scale *= 10 ** ((found - psnr) / 20)
        if not least < scale < most:
            scale = math.sqrt(least * most)
    raise UserError(f"psnr {psnr:g}: no scale of this noise gives it: choose another, or leave psnr away")


def dithered(size: Tensor, chance: Tensor) -> Tensor:
    """``size`` >= 0, in grey levels, as whole levels: rounded up with a probability of its fraction.

    ``chance`` uniform in [0, 1), of a shape that broadcasts to ``size``. Rounding to the nearest would know so few
    amplitudes that few PSNRs could be met. What comes to no level is kept as less than half a one: saving rounds it
    away, and a release can say so.
    """
    return torch.maximum(torch.floor(size + chance), size.clamp_max(_ROUNDED_AWAY))


def _mean_psnr(scale: float, data: Dataset, runtime: Runtime, released: Released) -> float:
    sums = torch.zeros(2, dtype=torch.float64)
    for indices in batches(local_slice(range(len(data)), runtime), _CHUNK):
        images, targets, ids = data.read(indices)
        saved = released(Batch(images.to(runtime.device), targets.to(runtime.device), ids), scale)
        error = (saved.cpu().double() - images.double()).square().flatten(1).mean(1)
        error = error[error > 0]
        sums += torch.stack([(10 * torch.log10(255**2 / error)).sum(), torch.tensor(float(len(error)))])
    total, count = runtime.all_reduce(sums.to(runtime.device)).tolist()
    return float(total / count) if count else math.inf
