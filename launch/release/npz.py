"""The file of an npz release: the original's arrays in order, of which only the protected splits' images differ."""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy
from torch import Tensor

from medveil.dataset import Batch
from medveil.errors import UserError
from medveil.launch.data import Source
from medveil.launch.data.npz_arrays import Header, header_of, read_header
from medveil.launch.release.compare import Compared, GreyLevels, Rendered, Saved, SavedFiles, batch_size, compare
from medveil.protector import Protector

_BLOCK_BYTES = 1 << 20


class NpzFiles(GreyLevels):
    """``NAME.npz`` under ``folder``. Each rank's images wait as raw bytes under ``work`` until it is put together."""

    def __init__(self, source: Source, folder: Path, work: Path) -> None:
        assert source.npz_path is not None
        self.source, self.original, self.work = source, source.npz_path, work
        self.path = folder / source.npz_path.name
        self.counts: dict[str, int] = {}
        for sample in source.data.ids:
            split = sample.partition("/")[0]
            self.counts[split] = self.counts.get(split, 0) + 1
        with zipfile.ZipFile(self.original) as archive:
            self.shapes = {split: header_of(archive, f"{split}_images", self.original).shape for split in self.counts}
        # Of volumes every slice is a sample.
        first = 1 if source.planes == 1 else 2
        self.forms = {split: shape[first:] for split, shape in self.shapes.items()}
        for split, form in self.forms.items():
            if (1 if len(form) == 2 else form[2]) < source.data.channels:
                raise UserError(
                    f"{self.original}: {split}_images is grey and another split is coloured: save them alike"
                )

    def write(self, rank: int, indices: Sequence[int], images: Sequence[Rendered], batch: Batch) -> None:
        """Append ``images`` to this rank's part; its shares come in ascending order."""
        with (self.work / f"part-{rank}").open("ab") as part:
            for index, image in zip(indices, images, strict=True):
                part.write(self._sample(index, image.values).tobytes())

    def assemble(self, indices: Sequence[int], world: int) -> None:
        """Put the parts and the original's other arrays together into the npz."""
        parts = [path for rank in range(world) if (path := self.work / f"part-{rank}").exists()]
        starts, at = {}, 0
        for split, shape in self.shapes.items():
            starts[split] = at
            at += int(np.prod(shape, dtype=np.int64))
        with zipfile.ZipFile(self.original) as original, zipfile.ZipFile(self.path, "w", allowZip64=True) as release:
            for member in original.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                split = member.filename.removesuffix("_images.npy")
                with release.open(member_info(member), "w", force_zip64=True) as out:
                    if split in self.shapes:
                        header = {"descr": "|u1", "fortran_order": False, "shape": self.shapes[split]}
                        npy.write_array_header_1_0(out, header)
                        size = int(np.prod(self.shapes[split], dtype=np.int64))
                        _copy_range(parts, starts[split], size, out)
                    else:
                        with original.open(member) as array:
                            shutil.copyfileobj(array, out, _BLOCK_BYTES)
        for path in parts:
            path.unlink()

    def compared(self, indices: Sequence[int], protector: Protector) -> Iterator[Compared]:
        """The images in the file, read back in the order of the data set, beside its originals."""
        for saved in self._saved(batch_size(self.source.data.size)):
            yield compare(saved, self.source.data.read(saved.indices), protector)

    def _saved(self, batch: int) -> Iterator[Saved]:
        with zipfile.ZipFile(self.path) as archive:
            first = 0
            for split, count in self.counts.items():
                with archive.open(f"{split}_images.npy") as file:
                    header = read_header(file)
                    if header != Header(self.shapes[split], False, np.dtype(np.uint8)):
                        raise ValueError(f"{split}_images was saved as {header.dtype} {header.shape}")
                    form = self.forms[split]
                    size = int(np.prod(form, dtype=np.int64))
                    for start in range(0, count, batch):
                        some = range(first + start, first + min(start + batch, count))
                        samples = [np.frombuffer(file.read(size), np.uint8).reshape(form) for _ in some]
                        files = [
                            SavedFiles(self.path.name, hashlib.sha256(sample.tobytes()).hexdigest())
                            for sample in samples
                        ]
                        yield Saved(some, torch.stack([self._image(sample) for sample in samples]), None, files)
                    if file.read(1):
                        raise ValueError(f"{split}_images is longer than its header says")
                first += count

    def expected(self, indices: Sequence[int]) -> set[str]:
        """Every file that the release must hold, and no other."""
        return {self.path.name}

    def differences(self) -> list[str]:
        """Arrays other than the protected splits' images that are not equal to the original's byte for byte."""
        with zipfile.ZipFile(self.original) as original, zipfile.ZipFile(self.path) as release:
            return unequal_members(original, release, {f"{split}_images.npy" for split in self.shapes})

    def _sample(self, index: int, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        shape = self.forms[self.source.data.ids[index].partition("/")[0]]
        wide = pixels if len(shape) == 2 or pixels.ndim == 3 else pixels[..., None]
        return np.ascontiguousarray(np.broadcast_to(wide, shape))

    def _image(self, sample: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 [C, H, W] with the data set's channels; three saved channels must be equal where it has one."""
        pixels = np.array(sample if sample.ndim == 3 else sample[..., None])
        if self.source.data.channels == 1:
            if (pixels != pixels[..., :1]).any():
                raise ValueError("the three channels of a grey image differ")
            pixels = pixels[..., :1]
        return torch.from_numpy(pixels).permute(2, 0, 1)


def member_info(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """For writing an array of the same name and compression; with a fixed date, so equal arrays give equal bytes."""
    info = zipfile.ZipInfo(member.filename)
    info.compress_type = member.compress_type
    return info


def _copy_range(parts: Sequence[Path], start: int, size: int, out: IO[bytes]) -> None:
    """``size`` bytes from ``start`` of the concatenated ``parts`` to ``out``."""
    for path in parts:
        length = path.stat().st_size
        if start < length and size:
            with path.open("rb") as part:
                part.seek(start)
                take = min(size, length - start)
                size -= take
                while take:
                    block = part.read(min(take, _BLOCK_BYTES))
                    out.write(block)
                    take -= len(block)
            start = 0
        else:
            start -= length if start >= length else 0
    if size:
        raise ValueError(f"{size} bytes of the protected images are missing")


def unequal_members(original: zipfile.ZipFile, release: zipfile.ZipFile, but: Set[str]) -> list[str]:
    """Arrays, other than those called ``but``, that are not equal byte for byte in both files."""
    before = [name for name in original.namelist() if name.endswith(".npy")]
    if release.namelist() != before:
        return ["the list of arrays"]
    return [name for name in before if name not in but and not _equal_members(original, release, name)]


def _equal_members(original: zipfile.ZipFile, release: zipfile.ZipFile, name: str) -> bool:
    with original.open(name) as a, release.open(name) as b:
        while True:
            block = a.read(_BLOCK_BYTES)
            if block != b.read(_BLOCK_BYTES):
                return False
            if not block:
                return True
