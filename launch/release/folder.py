"""The files of a folder release: lossless PNGs with masks beside them, or in class folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from medveil.dataset import Batch
from medveil.launch.data import Source
from medveil.launch.data.images import read_png, write_png
from medveil.launch.release.compare import Compared, GreyLevels, Rendered, Saved, SavedFiles, batch_size, compare
from medveil.protector import Protector


class FolderFiles(GreyLevels):
    """``images/NAME.png`` with ``masks/NAME.png`` (0 and 255), or ``images/CLASS/NAME.png``, under ``folder``."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder

    def write(self, rank: int, indices: Sequence[int], images: Sequence[Rendered], batch: Batch) -> None:
        """Save ``images`` and the targets of ``batch``."""
        for index, image, target in zip(indices, images, batch.targets, strict=True):
            write_png(self.folder / self._image(index), image.values)
            if self.source.data.task == "segmentation":
                write_png(self.folder / self._mask(index), target[0].numpy() * 255)

    def assemble(self, indices: Sequence[int], world: int) -> None:
        """Nothing is left to do: every sample has its own files."""

    def compared(self, indices: Sequence[int], protector: Protector) -> Iterator[Compared]:
        """What was written for ``indices``, read back from the disk, beside its originals."""
        for saved in self._saved(indices, batch_size(self.source.data.size)):
            yield compare(saved, self.source.data.read(saved.indices), protector)

    def _saved(self, indices: Sequence[int], batch: int) -> Iterator[Saved]:
        segmentation = self.source.data.task == "segmentation"
        for first in range(0, len(indices), batch):
            some = indices[first : first + batch]
            images, masks, files = [], [], []
            for index in some:
                image, digest = _picture(self.folder / self._image(index))
                saved = SavedFiles(self._image(index), digest)
                if segmentation:
                    mask, digest = _picture(self.folder / self._mask(index))
                    masks.append(mask)
                    saved = saved._replace(mask=self._mask(index), mask_sha256=digest)
                images.append(image)
                files.append(saved)
            targets = torch.stack(masks) if segmentation else None
            yield Saved(some, torch.stack(images), None if targets is None else _binary(targets), files)

    def expected(self, indices: Sequence[int]) -> set[str]:
        """Every file that the release must hold, and no other."""
        names = {self._image(index) for index in indices}
        if self.source.data.task == "segmentation":
            names |= {self._mask(index) for index in indices}
        return names

    def differences(self) -> list[str]:
        """Nothing but the samples' own files is in a folder release."""
        return []

    def _image(self, index: int) -> str:
        return f"images/{self._name(index)}.png"

    def _mask(self, index: int) -> str:
        return f"masks/{self._name(index)}.png"

    def _name(self, index: int) -> str:
        name = self.source.data.ids[index].removeprefix("phantom/")
        class_name = self.source.origin(index).class_name
        if self.source.data.task == "segmentation" or class_name is None or name.startswith(f"{class_name}/"):
            return name
        return f"{class_name}/{name}"


def _binary(masks: Tensor) -> Tensor:
    """{0, 255} as {0, 1}; any other value stays different from both."""
    return torch.where(masks == 255, 1, torch.where(masks == 0, 0, 2)).to(torch.uint8)


def _picture(path: Path) -> tuple[Tensor, str]:
    pixels, digest = read_png(path)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1), digest
