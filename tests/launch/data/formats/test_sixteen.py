"""Grey files of 16 bits: every bit comes back."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.data.formats import sixteen
from medveil.launch.data.images import write_picture


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_every_bit_comes_back(suffix: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (1, 33, 17)).astype(np.uint16)
    values[0, 0, :2] = 0, 65535
    path = tmp_path / f"x.{suffix}"
    write_picture(path, values[0])
    with Image.open(path) as image:
        assert sixteen.is_sixteen(image)
        stored = sixteen.stored(np.asarray(image), path)
    assert stored.limits == (0, 65535)
    assert np.array_equal(stored.values, values)
    assert stored.values.dtype == np.uint16


def test_eight_bits_are_not_sixteen_and_signed_values_are_refused(tmp_path: Path) -> None:
    assert not sixteen.is_sixteen(Image.new("L", (2, 2)))
    with pytest.raises(UserError, match="values of -5 to 9"):
        sixteen.stored(np.array([[-5, 9]], np.int32), Path("x.tif"))


def test_a_file_whose_zeros_are_white_is_refused(tmp_path: Path) -> None:
    values = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    path = tmp_path / "x.tif"
    write_picture(path, values)
    content = path.read_bytes()
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    with pytest.raises(UserError, match=r"x\.tif is a TIFF in which 0 is white"):
        sixteen.read(path)


def test_a_tiff_whose_second_image_is_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    write_picture(path, np.full((8, 8), 1000, np.uint16))
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, len(content))
    path.write_bytes(content + struct.pack("<HI", 0, 0))
    with pytest.raises(UserError, match=r"x\.tif"):
        sixteen.read(path)
