"""The files of a release at the size and depth of its originals."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medveil.dataset import Batch
from medveil.launch.data import Source
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import Values, Window, change_in_levels
from medveil.launch.data.images import decoding
from medveil.launch.data.native import Mask, NativeFile, Noise, keep_largest, native_noise, spread
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.compare import Compared, Rendered, SavedFiles
from medveil.launch.release.folder import read_png, write_png
from medveil.protector import Budget, Protector
from medveil.quantise import to_unit


class NativeFiles:
    """Every image in a file of its own name and form under ``folder``, its mask beside it."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder
        self._files = {index: file for file in source.files for index in file.indices}

    def portions(self, indices: Sequence[int], size: int) -> list[list[int]]:
        """``indices`` in parts of whole files, of about ``size`` samples each."""
        parts: list[list[int]] = []
        for file in self._of(indices):
            if not parts or len(parts[-1]) + file.planes > size:
                parts.append([])
            parts[-1] += file.indices
        return parts

    def render(self, indices: Sequence[int], batch: Batch, protected: Tensor, protector: Protector) -> list[Rendered]:
        """The noise of ``protected`` on the original values, within the budget and the support at their own size."""
        noise = ((protected - to_unit(batch.images)) * 255).numpy()
        support = protector.support(batch.targets)
        rendered = []
        with decoding():
            for place, (stored, file, plane) in enumerate(self._stored(indices)):
                own = None if support is None else _spread_support(support[place], stored.size)
                spread = native_noise(noise[place], stored.size, stored.channels)
                rendered.append(_render(stored, plane, spread, own, file.windows, protector.budget()))
        return rendered

    def _stored(self, indices: Sequence[int]) -> Iterator[tuple[Stored, NativeFile, int]]:
        """The original of each of ``indices``, its file, and which plane of it that is; each file is read once."""
        for file in self._of(indices):
            stored = file.stored()
            yield from ((stored, file, plane) for plane in range(file.planes))

    def write(self, rank: int, indices: Sequence[int], rendered: Sequence[Rendered], batch: Batch) -> None:
        """Save what was rendered of whole files, and their masks."""
        images = dict(zip(indices, rendered, strict=True))
        with decoding():
            for file in self._of(indices):
                (only,) = (images[index].values for index in file.indices)
                write_png(self.folder / f"{file.name}.png", only)
                if file.mask is not None and (foreground := file.foreground()) is not None:
                    write_png(self.folder / f"{file.mask}.png", foreground[0].astype(np.uint8) * 255)

    def assemble(self, indices: Sequence[int], world: int) -> None:
        """Nothing is left to do: every file is whole."""

    def compared(self, indices: Sequence[int], protector: Protector) -> Iterator[Compared]:
        """What was written for ``indices`` beside its originals, image by image."""
        with decoding():
            for file in self._of(indices):
                original, foreground = file.stored(), file.foreground()
                saved, files = self._saved(file, original, foreground)
                for plane, index in enumerate(file.indices):
                    before, after = original.values[plane], saved.values[plane]
                    targets = self.source.data.read([index]).targets
                    support = protector.support(targets)
                    yield Compared(
                        indices=[index],
                        original=_tensor(original.grey(plane, file.windows[0])),
                        saved=_tensor(saved.grey(plane, file.windows[0])),
                        change=_tensor(change_in_levels(before, after, original.scale, file.windows)),
                        changed=_tensor(before != after),
                        support=None if support is None else _tensor(_spread_support(support[0], original.size)),
                        targets=targets if foreground is None else _tensor(foreground[plane].astype(np.uint8)),
                        files=[files],
                    )

    def expected(self, indices: Sequence[int]) -> set[str]:
        """Every file that the release must hold, and no other."""
        files = self._of(indices)
        return {f"{file.name}.png" for file in files} | {f"{file.mask}.png" for file in files if file.mask is not None}

    def differences(self) -> list[str]:
        """Nothing but the samples' own files is in such a release."""
        return []

    def _of(self, indices: Sequence[int]) -> list[NativeFile]:
        """The files of ``indices``, each once, in their order."""
        return list(dict.fromkeys(self._files[index] for index in indices))

    def _saved(self, file: NativeFile, original: Stored, foreground: Mask | None) -> tuple[Stored, SavedFiles]:
        values, digest = read_png(self.folder / f"{file.name}.png")
        if values.shape != original.values.shape[1:] or values.dtype != original.values.dtype:
            raise VerificationFailed(f"{file.image.name} was saved as {values.dtype} of shape {values.shape}")
        files = SavedFiles(f"{file.name}.png", digest, size=original.size)
        if file.mask is not None and foreground is not None:
            mask, digest = read_png(self.folder / f"{file.mask}.png")
            if not np.array_equal(mask, foreground[0].astype(np.uint8) * 255):
                raise VerificationFailed(f"the mask of {file.image.name} was saved with other values")
            files = files._replace(mask=f"{file.mask}.png", mask_sha256=digest)
        return Stored(values[None], original.scale, original.limits, windows=original.windows), files


def _render(
    stored: Stored,
    plane: int,
    noise: Noise,
    support: Mask | None,
    windows: Sequence[Window],
    budget: Budget,
) -> Rendered:
    before = stored.values[plane]
    values = stored.changed(plane, noise, windows, budget.levels, support)
    if budget.changed is not None:
        most = math.floor(budget.changed * before.size + 1e-9)
        change = np.abs(values.astype(np.float64) - before)
        if np.count_nonzero(change) > most:
            values = np.where(keep_largest(change, most), values, before)
    return Rendered(values, bool(np.array_equal(values, before)))


def _spread_support(support: Tensor, size: tuple[int, int]) -> Mask:
    """``support`` [1, h, w] of the working grid, bool, at ``size``."""
    return spread(support.cpu().numpy(), size)[0]


def _tensor(image: Values) -> Tensor:
    """[H, W] or [H, W, C] as [1, C, H, W]."""
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    return (pixels[None] if image.ndim == 2 else pixels.permute(2, 0, 1))[None]
