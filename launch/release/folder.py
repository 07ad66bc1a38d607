"""The files of a folder release: lossless PNGs with masks beside them, or in class folders."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medveil.dataset import Batch
from medveil.launch.data import Source


class SavedFiles(NamedTuple):
    """The files of one sample within the release, and their sha256 (of the image's bytes where all share a file)."""

    file: str
    sha256: str
    mask: str | None = None
    mask_sha256: str | None = None


class Saved(NamedTuple):
    """Samples as they lie on the disk: uint8 [B, C, H, W], masks (None without), and each sample's files."""

    indices: Sequence[int]
    images: Tensor
    targets: Tensor | None
    files: list[SavedFiles]


class FolderFiles:
    """``images/NAME.png`` with ``masks/NAME.png`` (0 and 255), or ``images/CLASS/NAME.png``, under ``folder``."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder

    def write(self, rank: int, indices: Sequence[int], batch: Batch, released: Tensor) -> None:
        """Save ``released`` (uint8 [B, C, H, W]) and the targets of ``batch``."""
        for index, image, target in zip(indices, released, batch.targets, strict=True):
            _write_png(self.folder / self._image(index), image)
            if self.source.data.task == "segmentation":
                _write_png(self.folder / self._mask(index), target * 255)

    def assemble(self, indices: Sequence[int], world: int) -> None:
        """Nothing is left to do: every sample has its own files."""

    def saved(self, indices: Sequence[int], batch: int) -> Iterator[Saved]:
        """What was written for ``indices``, read back from the disk."""
        segmentation = self.source.data.task == "segmentation"
        for first in range(0, len(indices), batch):
            some = indices[first : first + batch]
            images, masks, files = [], [], []
            for index in some:
                image, digest = _read_png(self.folder / self._image(index))
                saved = SavedFiles(self._image(index), digest)
                if segmentation:
                    mask, digest = _read_png(self.folder / self._mask(index))
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


def _write_png(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    with path.open("wb") as file:
        picture.save(file, "PNG")
        file.flush()
        os.fsync(file.fileno())


def _read_png(path: Path) -> tuple[Tensor, str]:
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.array(picture)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return torch.from_numpy(pixels).permute(2, 0, 1), hashlib.sha256(content).hexdigest()
