"""The files of a release at the size and depth of its originals."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medveil.dataset import Batch
from medveil.launch.data import Source
from medveil.launch.data.formats.dicom_release import Identity
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import Values, Window, change_in_levels
from medveil.launch.data.images import decoding
from medveil.launch.data.native import Mask, NativeFile, Noise, keep_largest, native_noise, spread
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.compare import Compared, Rendered, SavedFiles
from medveil.launch.release.visibility import Visibility
from medveil.launch.running.files import sha256_of
from medveil.protector import Budget, Protector
from medveil.quantise import to_unit


class NativeFiles:
    """Every image in a file of its own name and form under ``folder``, its mask beside it."""

    def __init__(self, source: Source, folder: Path, identity: Identity) -> None:
        self.source, self.folder, self.identity = source, folder, identity
        self._files = {index: file for file in source.files for index in file.indices}
        self._visibility = Visibility()

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
                rendered.append(_render(stored, plane, spread, own, file.seen(plane), protector.budget()))
        return rendered

    def _stored(self, indices: Sequence[int]) -> Iterator[tuple[Stored, NativeFile, int]]:
        """The original of each of ``indices``, its file, and which plane of it that is; each file is read once."""
        for file in self._of(indices):
            stored = file.stored()
            yield from ((stored, file, plane) for plane in range(file.planes))

    def write(self, rank: int, indices: Sequence[int], images: Sequence[Rendered], batch: Batch) -> None:
        """Save ``images``, of whole files, and their masks."""
        values = dict(zip(indices, images, strict=True))
        with decoding():
            for file in self._of(indices):
                file.write(self.folder, np.stack([values[index].values for index in file.indices]), self.identity)

    def assemble(self, indices: Sequence[int], world: int) -> None:
        """Write what belongs to no sample: every image is whole already."""
        for name, content in self.source.others(self._of(indices)).items():
            (self.folder / name).write_text(content)

    def others(self) -> dict[str, str]:
        """The files that belong to no sample, and their sha256."""
        return {name: sha256_of(self.folder / name) for name in self.source.others(self.source.files)}

    def compared(self, indices: Sequence[int], protector: Protector) -> Iterator[Compared]:
        """What was written for ``indices`` beside its originals, image by image."""
        with decoding():
            for file in self._of(indices):
                original = file.stored()
                labels = file.label_map(original)
                foreground = None if labels is None else file.foreground(labels)
                saved, files = self._saved(file, original, labels)
                self._visibility.add(file, original, saved)
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
                        files=[files[plane]],
                    )

    def expected(self, indices: Sequence[int]) -> set[str]:
        """Every file that the release must hold, and no other."""
        files = self._of(indices)
        own = {file.place(plane)[0] for file in files for plane in range(file.planes)}
        own |= {file.mask for file in files if file.mask is not None}
        return own | set(self.source.others(files))

    def differences(self) -> list[str]:
        """Nothing but the samples' own files is in such a release."""
        return []

    def visible(self) -> dict[str, dict[str, float]]:
        """How strong the noise is under each window and normalisation, as far as :meth:`compared` has come."""
        return self._visibility.shown()

    def _of(self, indices: Sequence[int]) -> list[NativeFile]:
        """The files of ``indices``, each once, in their order."""
        return list(dict.fromkeys(self._files[index] for index in indices))

    def _saved(self, file: NativeFile, original: Stored, labels: Values | None) -> tuple[Stored, list[SavedFiles]]:
        """What was written of ``file``, and the files of each of its planes."""
        saved = file.released(self.folder)
        if saved.values.shape != original.values.shape or saved.values.dtype != original.values.dtype:
            raise VerificationFailed(f"{file.image.name} was saved as {saved.values.dtype} of {saved.values.shape}")
        same = ("scale", "limits", "inverted", "spacing")
        if differing := [name for name in same if getattr(saved, name) != getattr(original, name)]:
            raise VerificationFailed(f"{file.image.name} was saved with another {differing[0]}")
        places = [file.place(plane) for plane in range(file.planes)]
        digests = {name: sha256_of(self.folder / name) for name in dict(places)}
        files = [SavedFiles(name, digests[name], plane=plane, size=original.size) for name, plane in places]
        if file.mask is not None and labels is not None:
            if not np.array_equal(file.released_labels(self.folder, saved), labels):
                raise VerificationFailed(f"the mask of {file.image.name} was saved with other values")
            digest = sha256_of(self.folder / file.mask)
            files = [one._replace(mask=file.mask, mask_sha256=digest) for one in files]
        return saved, files


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
