"""One file at a time: what is decoded without loss, and what is refused by name."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data.images import decoding, read_image, read_mask, resize

GREY = np.random.default_rng(0).integers(0, 256, (12, 10), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG that Pillow itself would not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_grey_and_colour_of_every_format(tmp_path: Path, suffix: str) -> None:
    for name, pixels in (("grey", GREY), ("colour", COLOUR)):
        path = tmp_path / f"{name}.{suffix}"
        Image.fromarray(pixels).save(path)
        decoded = read_image(path)
        assert (decoded.size, decoded.changes) == ((10, 12), ())
        assert decoded.pixels.shape == pixels.shape
        if suffix != "jpg":
            np.testing.assert_array_equal(decoded.pixels, pixels)


def _palette() -> Image.Image:
    return Image.fromarray(COLOUR // 64 * 64).quantize(64)


LOSS_FREE = {
    "three equal channels": (lambda: Image.fromarray(np.dstack([GREY] * 3)), GREY, None),
    "palette of greys": (lambda: Image.fromarray(GREY).convert("P"), GREY, "palette"),
    "palette of colours": (_palette, np.asarray(_palette().convert("RGB")), "palette"),
    "1 bit": (lambda: Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0), "1 bit"),
    "opaque alpha": (lambda: Image.fromarray(np.dstack([COLOUR, GREY | 255])), COLOUR, "opaque alpha"),
    "opaque grey and alpha": (lambda: Image.fromarray(GREY).convert("LA"), GREY, "opaque alpha"),
    "16 bits, values of 8": (lambda: Image.fromarray(GREY.astype(np.uint16)), GREY, "16 or more bits"),
    "16 bits, times 257": (lambda: Image.fromarray(GREY.astype(np.uint16) * 257), GREY, "16 or more bits"),
    "16 bits, times 256": (lambda: Image.fromarray(GREY.astype(np.uint16) * 256), GREY, "16 or more bits"),
    "32 bits, values of 8": (lambda: Image.fromarray(GREY.astype(np.int32)), GREY, "16 or more bits"),
}


@pytest.mark.parametrize("case", LOSS_FREE)
def test_other_modes_are_converted_without_loss_and_said_so(tmp_path: Path, case: str) -> None:
    make, expected, said = LOSS_FREE[case]
    make().save(tmp_path / "x.tif")
    decoded = read_image(tmp_path / "x.tif")
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.pixels.dtype == np.uint8
    assert said in " ".join(decoded.changes) if said else decoded.changes == ()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is shown rotated clockwise
    Image.fromarray(COLOUR).save(tmp_path / "x.png", exif=exif)
    decoded = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(decoded.pixels, np.rot90(COLOUR, -1))
    assert decoded.size == (12, 10)
    assert "EXIF" in decoded.changes[0]


def _saved(image: Image.Image, suffix: str = "tif", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, {"tif": "TIFF", "png": "PNG", "jpg": "JPEG", "bmp": "BMP"}[suffix], **options)
    return file.getvalue()


def _noisy(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(2).integers(0, 256, (side, side, 3), dtype=np.uint8))


SIXTEEN = struct.pack(">12H", *range(0, 12000, 1000))
REFUSED = {
    "16-bit grey": (lambda: _saved(Image.fromarray(GREY.astype(np.uint16) * 250)), "8-bit grey"),
    "16-bit colour": (lambda: _png(2, 2, 16, 2, b"\0" + SIXTEEN[:12] + b"\0" + SIXTEEN[12:]), "8 bits"),
    "16-bit grey and alpha": (lambda: _png(3, 2, 16, 4, b"\0" + SIXTEEN[:12] + b"\0" + SIXTEEN[12:]), "8 bits"),
    "floating": (lambda: _saved(Image.fromarray(GREY.astype(np.float32))), "a F image"),
    "CMYK": (lambda: _saved(Image.fromarray(COLOUR).convert("CMYK")), "CMYK"),
    "transparent": (lambda: _saved(Image.fromarray(np.dstack([COLOUR, GREY]))), "alpha channel"),
    "transparent colour": (lambda: _saved(Image.fromarray(GREY), "png", transparency=int(GREY[0, 0])), "alpha channel"),
    "several pages": (lambda: _saved(_noisy(), save_all=True, append_images=[_noisy()]), "several images"),
    "not an image": (lambda: b"GIF89a no, nothing", "no PNG, JPEG, TIFF or BMP"),
    "empty file": (lambda: b"", "no PNG, JPEG, TIFF or BMP"),
    "truncated PNG": (lambda: _saved(_noisy(), "png")[:6000], "cannot be read"),
    "truncated JPEG": (lambda: _saved(_noisy(), "jpg")[:1500], "cannot be read"),
    "truncated TIFF": (lambda: _saved(_noisy(), "tif")[:6000], "cannot be read"),
    "truncated BMP": (lambda: _saved(_noisy(), "bmp")[:6000], "cannot be read"),
    "huge": (lambda: _png(9440, 9440, 8, 0, b"\0"), "is huge"),
    "very huge": (lambda: _png(20000, 20000, 8, 0, b"\0"), "is huge"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_whole_is_refused_by_name(tmp_path: Path, case: str) -> None:
    make, said = REFUSED[case]
    path = tmp_path / "scan.png"
    path.write_bytes(make())
    with pytest.raises(UserError, match=said) as refused, decoding():
        read_image(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png cannot be read \(No such file"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("foreground", [1, 127, 255, (200, 0, 0)])
def test_a_mask_has_zero_and_one_other_value(tmp_path: Path, foreground: int | tuple[int, int, int]) -> None:
    inside = GREY > 127
    pixels = np.where(inside[..., None], foreground, 0).astype(np.uint8)
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png").pixels
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, inside)


@pytest.mark.parametrize("pixels", [GREY % 3, np.dstack([GREY % 2, GREY // 128, GREY * 0]), np.maximum(GREY % 3, 1)])
def test_a_mask_of_more_values_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png has \d+ values .* two"):
        read_mask(tmp_path / "m.png")


def test_resizing_averages_images_and_picks_in_masks() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = resize(checks, (16, 16))
    assert small[2:-2, 2:-2].min() > 100  # without antialiasing some would be 0 or 255
    assert small[2:-2, 2:-2].max() < 155
    mask = (np.indices((64, 48))[1] >= 24).astype(np.uint8)
    picked = resize(mask, (17, 31), mask=True)
    assert picked.shape == (17, 31)
    assert set(np.unique(picked)) == {0, 1}
