"""Decoded pixels, held for every epoch: in memory while they are few, else in a file that vanishes with the process."""

import os
import tempfile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medveil.errors import UserError

RAM_BUDGET = 2 << 30
"""Bytes of one array beyond which it lies in a temporary file."""

Pixels = npt.NDArray[np.uint8]


def allocate(shape: tuple[int, ...]) -> Pixels:
    """A uint8 array of ``shape``, in memory or mapped onto an unlinked temporary file.

    Raises :class:`UserError` if the file does not fit on its disk.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if count <= RAM_BUDGET:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        try:
            # Reserved now: a page that does not fit would otherwise end the process with SIGBUS when it is written.
            os.posix_fallocate(file.fileno(), 0, count)
        except OSError as error:
            where = tempfile.gettempdir()
            raise UserError(
                f"the decoded images need {count / 2**30:.1f} GiB in {where} ({error.strerror}): free space there, "
                "or set TMPDIR to another disk"
            ) from None
        return np.memmap(file, np.uint8, "r+", shape=shape)


class PixelStore:
    """Images of one size, filled by position; one channel until the first image whose channels differ."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self._pixels = allocate((count, 1, height, width))

    @property
    def channels(self) -> int:
        return self._pixels.shape[1]

    def put(self, start: int, block: Pixels) -> None:
        """Store ``block``, uint8 [B, H, W] or [B, H, W, 3], from position ``start`` on."""
        if block.ndim == 4 and grey(block):
            block = block[..., 0]
        if block.ndim == 3:
            block = block[..., None]
        else:
            self.widen()
        self._pixels[start : start + len(block)] = block.transpose(0, 3, 1, 2)

    def widen(self) -> None:
        """Three channels from here on; the images stored so far get three equal ones."""
        if self.channels == 3:
            return
        count, _, height, width = self._pixels.shape
        wide = allocate((count, 3, height, width))
        for first in range(0, count, 256):
            wide[first : first + 256] = self._pixels[first : first + 256]
        self._pixels = wide

    def tensor(self) -> Tensor:
        """uint8 [N, C, H, W]; shares the store's memory."""
        return torch.from_numpy(self._pixels)


def grey(pixels: Pixels) -> bool:
    """Whether the last axis of ``pixels`` [..., C] holds equal channels."""
    return bool((pixels[..., 1:] == pixels[..., :1]).all())
