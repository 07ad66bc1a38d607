"""The pictures that a run kept of a few samples, read as what they must be."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medveil.errors import UserError
from medveil.launch.reading import open_regular

_BYTES = 256 << 20
"""The most that one array of pictures may have."""

_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_pictures(path: Path, names: Mapping[str, int]) -> dict[str, NDArray[np.uint8]]:
    """Those of the arrays called ``names`` that the npz ``path`` has: uint8, or bool as uint8.

    ``names`` says how many axes each has: [K, H, W] or [K, H, W, C] with C of 1 or 3; K, H and W are equal in all, K at
    least 1. Raises UserError for a file that is not so.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            for member in arrays.zip.infolist():
                if member.file_size > _BYTES:
                    raise ValueError(f"{member.filename} has {member.file_size} bytes")
            found = {name: _picture(arrays[name], axes) for name, axes in names.items() if name in arrays}
    except UserError:
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} holds no pictures of a run ({reason}); remove it or run its cell again") from None
    if len({array.shape[:3] for array in found.values()}) > 1:
        raise UserError(f"{path} holds pictures of different shapes; remove it or run its cell again")
    return found


def _picture(array: NDArray[np.uint8], axes: int) -> NDArray[np.uint8]:
    sound = array.ndim == axes and min(array.shape) > 0 and (axes == 3 or array.shape[3] in (1, 3))
    if array.dtype not in (np.uint8, np.bool_) or not sound:
        raise ValueError(f"an array is {array.dtype} {array.shape}")
    return array.astype(np.uint8)
