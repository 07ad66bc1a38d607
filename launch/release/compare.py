"""What was saved beside what it was made from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from medveil.dataset import Batch
from medveil.launch.errors import VerificationFailed
from medveil.protector import Protector
from medveil.quantise import quantise
from medveil.runtime import batches

_BATCH_PIXELS = 1 << 19


class SavedFiles(NamedTuple):
    """The files of one sample within the release, and their sha256 (of the image's bytes where all share a file).

    ``plane``: which plane of the file the sample is, where it has several. ``size``: its height and width, where the
    images of the release differ in these.
    """

    file: str
    sha256: str
    mask: str | None = None
    mask_sha256: str | None = None
    plane: int | None = None
    size: tuple[int, int] | None = None


class Compared(NamedTuple):
    """Some samples, of one size, as they were and as they are saved.

    ``original`` and ``saved``: uint8 [B, C, H, W], as they are looked at. ``change``: in grey levels, the most under
    any window, [B, C, H, W]. ``changed``: where the stored values differ, bool [B, C, H, W]. ``support``: where the
    method may change them, bool and broadcastable to that; None: everywhere. ``targets``: as a batch has them, masks of
    the size of the images.
    """

    indices: Sequence[int]
    original: Tensor
    saved: Tensor
    change: Tensor
    changed: Tensor
    support: Tensor | None
    targets: Tensor
    files: list[SavedFiles]


class Saved(NamedTuple):
    """Samples as they lie on the disk: uint8 [B, C, H, W], masks (None without), and each sample's files."""

    indices: Sequence[int]
    images: Tensor
    targets: Tensor | None
    files: list[SavedFiles]


class Rendered(NamedTuple):
    """One image as it is to be saved, [H, W] or [H, W, 3], and whether it is still the original."""

    values: npt.NDArray[Any]
    unchanged: bool


class GreyLevels:
    """What the files of releases of 8 bits have in common: one form for all, and nothing beside the samples."""

    def portions(self, indices: Sequence[int], size: int) -> list[list[int]]:
        """``indices`` in parts of ``size`` samples."""
        return [list(some) for some in batches(indices, size)]

    def render(self, indices: Sequence[int], batch: Batch, protected: Tensor, protector: Protector) -> list[Rendered]:
        """``protected`` (float32 [B, C, H, W] in [0, 1]) in whole grey levels, within the budget of ``protector``."""
        released = quantise(protected, batch.images, protector.budget().levels)
        unchanged = (released == batch.images).flatten(1).all(1)
        return [
            Rendered((image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy(), bool(same))
            for image, same in zip(released, unchanged, strict=True)
        ]

    def others(self) -> dict[str, str]:
        """The files that belong to no sample, and their sha256: none."""
        return {}

    def visible(self) -> dict[str, dict[str, float]]:
        """Images of 8 bits are looked at as they are: there is nothing to tell."""
        return {}


def batch_size(size: tuple[int, int]) -> int:
    """Images perturbed or verified together: about half a million pixels."""
    return max(1, min(64, _BATCH_PIXELS // (size[0] * size[1])))


def compare(saved: Saved, original: Batch, protector: Protector) -> Compared:
    """Grey levels beside grey levels. Raises :class:`VerificationFailed` for another shape or other masks."""
    if saved.images.shape != original.images.shape:
        raise VerificationFailed(f"{original.ids[0]} was saved with shape {tuple(saved.images.shape[1:])}")
    if saved.targets is not None and not torch.equal(saved.targets, original.targets):
        raise VerificationFailed(f"a mask of {', '.join(original.ids)} was saved with other values")
    change = (saved.images.to(torch.int16) - original.images.to(torch.int16)).abs()
    support = protector.support(original.targets)
    return Compared(
        saved.indices, original.images, saved.images, change, change > 0, support, original.targets, saved.files
    )
