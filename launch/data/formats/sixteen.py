"""Grey PNG and TIFF files of 16 bits."""

from pathlib import Path

import numpy as np
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import Values
from medveil.launch.data.images import UNREADABLE

_PHOTOMETRIC = 262
"""The tag of a TIFF that says what its zeros mean."""


def is_sixteen(image: Image.Image) -> bool:
    """Whether Pillow opened a grey file of 16 bits, signed or not."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "TIFF"))


def read(path: Path) -> Stored:
    """The grey image of 16 bits at ``path``. Raises :class:`UserError` for what is none."""
    try:
        with Image.open(path, formats=("PNG", "TIFF")) as image:
            if not is_sixteen(image):
                raise UserError(f"{path} is no grey image of 16 bits, as the others of its set are")
            if getattr(image, "n_frames", 1) > 1:
                raise UserError(f"{path} holds several images: save each as a file of its own")
            if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
                raise UserError(f"{path} is a TIFF in which 0 is white: save it with 0 as black")
            return stored(np.asarray(image), path)
    except UserError:
        raise
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be read ({said}): replace it or move it away") from None


def stored(values: Values, path: Path) -> Stored:
    """What Pillow decoded of ``path``, [H, W], as 16 bits. Raises :class:`UserError` for other values."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 65535:
        return Stored(values.astype(np.uint16)[None], limits=(0, 65535))
    raise UserError(f"{path} has values of {low} to {high}: grey of 8 or 16 bits without sign is read")
