"""How alike two images are, by the measures of SALM's Table 5 and PSNR. Shares are in [0, 1], PSNR in dB.

The paper gives percentages and no definitions; ours: SSIM as :func:`medveil.metrics.ssim`; the hash measures are the
share of equal bits of two 64-bit hashes (imagehash, 8x8, of the grey image); NMI is 2 I(a, b) / (H(a) + H(b)) of the
grey levels at equal places, all channels together, that is scikit-learn's normalised mutual information.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from medveil.metrics import mean_psnr, psnr, ssim

MEASURES = ("ssim", "ahash", "phash", "dhash", "nmi", "psnr")


def similarity(original: Tensor, released: Tensor) -> dict[str, float]:
    """Every one of :data:`MEASURES` of two uint8 images [C, H, W], C = 1 or 3."""
    import imagehash

    hashes: dict[str, Callable[[Any], Any]] = {
        "ahash": imagehash.average_hash,
        "phash": imagehash.phash,
        "dhash": imagehash.dhash,
    }
    pictures = [_picture(image) for image in (original, released)]
    return {
        "ssim": ssim(original, released),
        **{name: _equal_bits(*map(make, pictures)) for name, make in hashes.items()},
        "nmi": nmi(original, released),
        "psnr": psnr(original, released),
    }


def nmi(original: Tensor, released: Tensor) -> float:
    """Normalised mutual information of the grey levels of two uint8 images of one shape; 1 for two equal ones."""
    from skimage.metrics import normalized_mutual_information

    if original.equal(released):
        # Of an image of one level, which has no information, it would not be defined.
        return 1.0
    # Studholme's form, (H(a) + H(b)) / H(a, b) in [1, 2], of which the share of information is a function.
    studholme = float(normalized_mutual_information(original.numpy(), released.numpy(), bins=256))
    return 2 - 2 / studholme if np.isfinite(studholme) else 0.0


def mean_similarity(all_measures: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each measure over some images; of PSNR over those that changed. Empty for none."""
    if not all_measures:
        return {}
    means = {name: float(np.mean([one[name] for one in all_measures])) for name in MEASURES if name != "psnr"}
    return {**means, "psnr": mean_psnr(one["psnr"] for one in all_measures)}


def _picture(image: Tensor) -> Any:
    from PIL import Image

    pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels)


def _equal_bits(first: Any, second: Any) -> float:
    return float(1 - (first - second) / first.hash.size)
