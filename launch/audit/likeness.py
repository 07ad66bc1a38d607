"""How alike the released images and their originals are."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from medveil import metrics
from medveil.dataset import Dataset
from medveil.launch.audit.samples import Selection, clean_selection
from medveil.launch.data import Opener
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.verify import SSIM_SAMPLE, evenly
from medveil.launch.running.files import write_arrays
from medveil.runtime import batches
from medveil.similarity import mean_similarity, similarity

_CHUNK = 64
_PICTURES = 5
_SIMILARITY_SAMPLE = 256


class Likeness(NamedTuple):
    """``psnr`` in dB and ``ssim``: means over the images that changed (infinite and 1 when none did), SSIM and
    ``similarity`` (:data:`medveil.similarity.MEASURES`) over an even sample of these where they are many (1,024 and
    256). ``pictures``: the npz that was written. ``roi_psnr``: PSNR inside the masks alone, None without any.
    """

    psnr: float
    ssim: float
    pictures: Path
    similarity: dict[str, float]
    roi_psnr: float | None


def compare_images(
    release: Path, original: str, size: int | None, pictures: Path, opener: Opener | None = None
) -> Likeness:
    """:func:`compare_selections` of a release and its originals, both at ``size`` (None: the release's own).

    Raises UserError when a sample is missing in the original, or the two do not fit together.
    """
    released = Selection(str(release), size=size, opener=opener or Opener())
    clean = clean_selection(release, original, released.source, Manifest.read(release), released.opener)
    return compare_selections(released, clean, pictures)


def compare_selections(train: Selection, original: Selection, pictures: Path) -> Likeness:
    """Hold the images of ``train`` against those of ``original``, which are as many in the same order.

    Writes ``pictures``: an npz of a few changed samples, uint8 [K, H, W, C], as ``original`` and ``protected``, with
    the ``masks`` {0, 1} [K, H, W, 1] of a segmentation set.
    """
    released, clean = train.open(), original.open()
    psnrs: list[float] = []
    inside: list[float] = []
    changed: list[int] = []
    for indices in batches(range(len(released)), _CHUNK):
        originals, (changed_to, targets, _) = clean.read(indices).images, released.read(indices)
        for index, before, after, target in zip(indices, originals, changed_to, targets, strict=True):
            if not before.equal(after):
                changed.append(index)
                psnrs.append(metrics.psnr(before, after))
            if released.task == "segmentation" and target.any():
                inside.append(metrics.roi_psnr(before, after, target))
    ssims = [metrics.ssim(*pair) for pair in _pairs(clean, released, evenly(changed, SSIM_SAMPLE))]
    alike = [similarity(*pair) for pair in _pairs(clean, released, evenly(changed, _SIMILARITY_SAMPLE))]
    among = changed or range(len(released))
    shown = evenly(among, _PICTURES)
    both = [data.read(shown) for data in (clean, released)]
    sheets: dict[str, Any] = {
        name: part.images.permute(0, 2, 3, 1).numpy()
        for name, part in zip(("original", "protected"), both, strict=True)
    }
    if released.task == "segmentation":
        sheets["masks"] = both[1].targets.permute(0, 2, 3, 1).numpy()
    write_arrays(pictures, sheets)
    ssim = float(np.mean(ssims)) if ssims else 1.0
    roi_psnr = metrics.mean_psnr(inside) if inside else None
    return Likeness(metrics.mean_psnr(psnrs), ssim, pictures, mean_similarity(alike), roi_psnr)


def _pairs(clean: Dataset, released: Dataset, indices: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for some in batches(indices, _CHUNK):
        yield from zip(clean.read(some).images, released.read(some).images, strict=True)
