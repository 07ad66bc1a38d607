"""One image or mask file, decoded to 8-bit grey or colour without loss, or refused by name."""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from medveil.errors import UserError
from medveil.launch.data.store import Pixels, grey
from medveil.launch.reading import open_regular, read_bytes

MAX_PIXELS = 89_000_000
"""Pixels of the largest image that is read: below Pillow's own limit against decompression bombs."""

_MAX_BYTES = 1 << 30
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_ORIENTATION = 0x0112
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda mask: mask[:, ::-1],
    3: lambda mask: mask[::-1, ::-1],
    4: lambda mask: mask[::-1],
    5: lambda mask: mask.T,
    6: lambda mask: np.rot90(mask, -1),
    7: lambda mask: mask[::-1, ::-1].T,
    8: lambda mask: np.rot90(mask),
}
"""What turns a mask as EXIF's orientation turns its image."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""Whatever Pillow's decoders raise for bytes that are not what they seem."""


@dataclass(frozen=True)
class Decoded:
    """``pixels``: uint8 [H, W], or [H, W, 3] if the channels differ. ``size``: width and height, upright.

    ``mode``: as Pillow names the file's. ``changes``: what was done to it, for a note. ``sha256``: of the file.
    ``orientation``: EXIF's, by which it was turned upright (1: it was not). ``turned``: a mask, as its image was.
    """

    pixels: Pixels
    size: tuple[int, int]
    mode: str
    changes: tuple[str, ...]
    sha256: str
    orientation: int = 1
    turned: bool = False


@contextmanager
def decoding() -> Iterator[None]:
    """Around calls of :func:`read_image` and :func:`read_mask` (not thread-safe itself, so that they can be).

    Pillow warns of a huge image before its size can be seen here, and of damaged metadata, which is dropped anyway.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        yield


def read_image(path: Path) -> Decoded:
    """The image at ``path``, upright.

    Raises :class:`UserError` if it cannot be read whole, or not as 8-bit grey or colour without loss.
    """
    try:
        content = read_bytes(path, _MAX_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the file and its permissions") from None
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_header(image, path)
            mode, orientation = image.mode, image.getexif().get(_ORIENTATION, 1)
            image.load()
            upright = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{path} is huge: at most {MAX_PIXELS // 10**6} million pixels are read; scale it down first"
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is no PNG, JPEG, TIFF or BMP image, or is damaged: replace it or move it away"
        ) from None
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): replace it or move it away") from None
    pixels, change = _eight_bits(upright, path)
    if pixels.ndim == 3 and grey(pixels):
        pixels = pixels[:, :, 0].copy()
    changes = tuple(filter(None, (change, "turned upright by EXIF orientation" if orientation in _TURNS else None)))
    digest = hashlib.sha256(content).hexdigest()
    return Decoded(pixels, upright.size, mode, changes, digest, orientation if orientation in _TURNS else 1)


def read_orientation(path: Path) -> int:
    """EXIF's orientation of the image at ``path``, by its header alone; 1 where it says none."""
    header = _header(path)
    return 1 if header is None else header[1]


def read_size(path: Path) -> tuple[int, int] | None:
    """Height and width of the image at ``path``, upright, by its header alone; None for what reading it will refuse."""
    header = _header(path)
    if header is None:
        return None
    (width, height), orientation = header
    return (width, height) if orientation >= 5 else (height, width)


def _header(path: Path) -> tuple[tuple[int, int], int] | None:
    """Width and height as stored, and EXIF's orientation."""
    try:
        with open_regular(path) as file, Image.open(file, formats=_FORMATS) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            return image.size, orientation if orientation in _TURNS else 1
    except (*UNREADABLE, UserError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def read_mask(path: Path, orientation: int = 1, size: tuple[int, int] | None = None) -> Decoded:
    """The mask at ``path`` as uint8 {0, 1} [H, W]: 0 is background, the one other value (or colour) foreground.

    It is turned by its image's EXIF ``orientation`` as that was, unless it says itself how it lies, or has the upright
    ``size`` (width, height) of the image already.
    Raises :class:`UserError` as :func:`read_image` does, and if there is more than one other value.
    """
    decoded = read_image(path)
    values = decoded.pixels if decoded.pixels.ndim == 3 else decoded.pixels[..., None]
    inside: npt.NDArray[np.bool_] = np.asarray(values.any(axis=-1))
    foreground = values[inside]
    if len(foreground) and (foreground != foreground[0]).any():
        raise UserError(_too_many_values(path, values))
    mask, turned = inside.astype(np.uint8), False
    if size is not None and orientation in _TURNS and decoded.orientation == 1:
        stored = size[::-1] if orientation >= 5 else size
        if decoded.size == stored:
            mask, turned = np.ascontiguousarray(_TURNS[orientation](mask)), True
    size = mask.shape[1], mask.shape[0]
    return Decoded(mask, size, decoded.mode, decoded.changes, decoded.sha256, turned=turned)


def _too_many_values(path: Path, values: Pixels) -> str:
    distinct = np.unique(values.reshape(-1, values.shape[-1]), axis=0)
    blurred = path.suffix.lower() in (".jpg", ".jpeg")
    what = "is a JPEG, which blurs masks, and " if blurred else ""
    zero = "" if (distinct == 0).all(axis=-1).any() else " and no 0"
    return f"{path} {what}has {len(distinct)} values{zero} where a mask has two, 0 and one other: save a PNG of two"


def _check_header(image: Image.Image, path: Path) -> None:
    """Refuse what decoding would cut silently: further frames, and the low bytes of 16-bit colour."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        raise UserError(
            f"{path} is huge ({size}): at most {MAX_PIXELS // 10**6} million pixels are read; scale it down first"
        )
    # A camera's JPEG may carry previews as further frames; its first one is the picture.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} holds several images: save each as a file of its own")
    for tile in getattr(image, "tile", ()):
        raw = tile[3] if isinstance(tile[3], str) else tile[3][0]
        if isinstance(raw, str) and ";16" in raw and not image.mode.startswith("I"):
            raise UserError(f"{path} has 16 bits a channel: save it with 8 bits")


def _eight_bits(image: Image.Image, path: Path) -> tuple[Pixels, str | None]:
    """uint8 [H, W] or [H, W, 3] and how it was converted, if it was."""
    mode = image.mode
    transparent = mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    if mode in ("1", "L", "LA", "RGB", "RGBA", "P", "PA"):
        if transparent:
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
            if (alpha != 255).any():
                raise UserError(f"{path} has transparent pixels: save it without an alpha channel")
        if mode == "1":
            return np.asarray(image.convert("L")), "converted from 1 bit without loss"
        if mode in ("P", "PA"):
            return np.asarray(image.convert("RGB")), "converted from a palette without loss"
        if transparent:
            return np.asarray(image.convert("L" if mode in ("L", "LA") else "RGB")), "freed of an opaque alpha channel"
        return np.asarray(image), None
    if mode.startswith("I"):
        return _from_wide(np.asarray(image), path), "converted from 16 or more bits without loss"
    raise UserError(f"{path} is a {mode} image, which cannot become grey or RGB without loss: convert it first")


def _from_wide(values: npt.NDArray[Any], path: Path) -> Pixels:
    """8-bit values out of wider ones: as they are, or scaled by 257 (the usual widening) or 256."""
    if values.min() >= 0:
        if values.max() <= 255:
            return values.astype(np.uint8)
        for factor in (257, 256):
            if values.max() <= 255 * factor and not (values % factor).any():
                return (values // factor).astype(np.uint8)
    raise UserError(
        f"{path} has 16 or more bits and more than 256 grey levels: choose a window and save it as 8-bit grey"
    )


def resize(pixels: Pixels, size: tuple[int, int], *, mask: bool = False) -> Pixels:
    """``pixels`` [H, W] or [H, W, 3] at ``size`` (height, width): antialiased bilinear, or nearest for masks."""
    if pixels.shape[:2] == size:
        return pixels
    resample = Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), resample))


def write_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Save ``pixels`` [H, W] or [H, W, 3] without loss."""
    _write(path, pixels, "PNG")


def write_picture(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Save ``pixels``, uint8 [H, W] or [H, W, 3] or uint16 [H, W], without loss, as the TIFF or BMP that the name of
    ``path`` says, else as PNG.
    """
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        _write(path, pixels, "TIFF", compression="tiff_adobe_deflate")
    else:
        _write(path, pixels, "BMP" if suffix == ".bmp" else "PNG")


def _write(path: Path, pixels: npt.NDArray[Any], kind: str, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()  # writers of TIFF go back and forth
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    path.write_bytes(buffer.getvalue())


def read_png(path: Path) -> tuple[npt.NDArray[Any], str]:
    """The pixels [H, W] or [H, W, 3] of a file that :func:`write_png` wrote, and its sha256."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        return np.array(picture), hashlib.sha256(content).hexdigest()
