"""Decoded pixels, held for every epoch: in memory while they are few, else in a file of which little is resident."""

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy
from torch import Tensor

from medveil.dataset import ArrayDataset, Batch, Dataset, Task
from medveil.errors import UserError
from medveil.launch.reading import open_regular

RAM_BUDGET = 2 << 30
"""Bytes of one array beyond which it lies in a file."""

Pixels = npt.NDArray[np.uint8]


class Mapped:
    """A uint8 ``array`` mapped onto an npy file. What was read or written counts as resident until :meth:`let_go`."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], begin: int, writable: bool) -> None:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(file.fileno(), begin + math.prod(shape), access=access)
        self.array: Pixels = np.frombuffer(self._map, np.uint8, math.prod(shape), begin).reshape(shape)

    def take(self, indices: Sequence[int]) -> Tensor:
        """A copy of the entries at ``indices`` of the first axis."""
        taken = torch.from_numpy(self.array[np.asarray(indices, dtype=np.int64)])
        self.let_go()
        return taken

    def let_go(self) -> None:
        """Hand the pages back; the file (or the system's cache of it) keeps what was written."""
        self._map.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class MappedDataset:
    """A data set larger than memory: uint8 ``images`` [N, C, H, W] and perhaps masks [N, 1, H, W] in files."""

    images: Mapped
    targets: Tensor | Mapped
    ids: Sequence[str]
    task: Task
    num_classes: int

    @property
    def channels(self) -> int:
        return self.images.array.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        return self.images.array.shape[2], self.images.array.shape[3]

    def __len__(self) -> int:
        return len(self.images.array)

    def read(self, indices: Sequence[int]) -> Batch:
        if isinstance(self.targets, Mapped):
            targets = self.targets.take(indices)
        else:
            targets = self.targets[torch.as_tensor(indices, dtype=torch.int64)]
        return Batch(self.images.take(indices), targets, [self.ids[i] for i in indices])


def allocate(shape: tuple[int, ...], path: Path | None = None) -> Pixels | Mapped:
    """A uint8 array of ``shape``: in memory, beyond :data:`RAM_BUDGET` in a file that vanishes with the process, or
    as the npy file ``path``.

    Raises :class:`UserError` if the file does not fit on its disk.
    """
    count = math.prod(shape)
    if path is None and count <= RAM_BUDGET:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() if path is None else _private(path) as file:
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        begin = file.tell()
        file.flush()
        try:
            # Reserved now: a page that does not fit would otherwise end the process with SIGBUS when it is written.
            os.posix_fallocate(file.fileno(), 0, begin + count)
        except OSError as error:
            where = tempfile.gettempdir() if path is None else path.parent
            mend = "set TMPDIR to another disk" if path is None else "name a folder on another disk with --cache"
            raise UserError(
                f"the decoded images need {count / 2**30:.1f} GiB in {where} ({error.strerror}): free space there, "
                f"or {mend}"
            ) from None
        return Mapped(file, shape, begin, writable=True)


def open_mapped(path: Path) -> Mapped:
    """The npy file ``path`` that :func:`allocate` made, to read. Raises ValueError for another one."""
    with open_regular(path) as file:
        npy.read_magic(file)
        shape, fortran, dtype = npy.read_array_header_1_0(file)
        if fortran or dtype != np.uint8:
            raise ValueError(f"{path} holds {dtype}")
        return Mapped(file, shape, file.tell(), writable=False)


class PixelStore:
    """Images of one size, filled by position; one channel until the first image whose channels differ.

    ``path``: where they are kept as an npy file; None: in memory, or in a temporary file where they are many.
    """

    def __init__(self, count: int, height: int, width: int, path: Path | None = None) -> None:
        self._path = path
        self._store = allocate((count, 1, height, width), path)

    @property
    def _pixels(self) -> Pixels:
        return self._store.array if isinstance(self._store, Mapped) else self._store

    @property
    def channels(self) -> int:
        return self._pixels.shape[1]

    def put(self, start: int, block: Pixels) -> None:
        """Store ``block``, uint8 [B, H, W] or [B, H, W, 3], from position ``start`` on."""
        if block.ndim == 4 and self.channels == 1 and grey(block):
            block = block[..., 0]
        if block.ndim == 3:
            block = block[..., None]
        else:
            self.widen()
        self._pixels[start : start + len(block)] = block.transpose(0, 3, 1, 2)
        self._let_go()

    def widen(self) -> None:
        """Three channels from here on; the images stored so far get three equal ones."""
        if self.channels == 3:
            return
        count, _, height, width = self._pixels.shape
        if self._path is not None:
            # The narrow file lives on without a name until it is copied.
            self._path.unlink()
        wide, narrow = allocate((count, 3, height, width), self._path), self._pixels
        for first in range(0, count, 256):
            (wide.array if isinstance(wide, Mapped) else wide)[first : first + 256] = narrow[first : first + 256]
            self._let_go()
            if isinstance(wide, Mapped):
                wide.let_go()
        self._store = wide

    def cut(self, count: int) -> None:
        """Forget all but the first ``count`` images."""
        if isinstance(self._store, Mapped):
            self._store.array = self._store.array[:count]
        else:
            self._store = self._store[:count]

    def dataset(self, targets: "Tensor | PixelStore", ids: Sequence[str], task: Task, num_classes: int) -> Dataset:
        """The stored images with ``targets`` (a store: masks); shares the stores' memory."""
        goals = targets if isinstance(targets, Tensor) else targets._store
        if isinstance(self._store, Mapped):
            held = goals if isinstance(goals, Mapped | Tensor) else torch.from_numpy(goals)
            return MappedDataset(self._store, held, ids, task, num_classes)
        # Masks have no more channels than their images: they are in memory too.
        assert not isinstance(goals, Mapped)
        held_goals = goals if isinstance(goals, Tensor) else torch.from_numpy(goals)
        return ArrayDataset(torch.from_numpy(self._store), held_goals, ids, task, num_classes)

    def _let_go(self) -> None:
        if isinstance(self._store, Mapped):
            self._store.let_go()


def grey(pixels: Pixels) -> bool:
    """Whether the last axis of ``pixels`` [..., C] holds equal channels."""
    return bool((pixels[..., 1:] == pixels[..., :1]).all())


def _private(path: Path) -> IO[bytes]:
    with suppress(FileNotFoundError):
        path.unlink()
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
