from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.feature import local_binary_pattern as skimage_lbp

from medveil.kernels import local_binary_pattern, texture_map
from medveil.kernels.lbp import grey_levels, reference

METHODS = ("default", "ror", "uniform")


def made_up_images() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    down, across = np.arange(61)[:, None], np.arange(70)[None]
    images = {
        "random": random.integers(0, 256, (37, 41)),
        "flat": np.full((9, 7), 200),
        "black": np.zeros((5, 5)),
        "stepped": (down // 7 * 40 + across // 5 * 9) % 256,
        "few levels": random.integers(100, 104, (64, 64)),  # full of ties that fp64 rounding decides
        "rising ramp": down + across,
        "falling ramp": down - across + 70,
        "two levels": random.integers(0, 2, (33, 33)) * 255,
        "tall": random.integers(80, 83, (1100, 9)),  # past row 512 the rounding changes
        "wide": random.integers(80, 83, (9, 1100)),
        "one pixel": np.full((1, 1), 7),
        "one row": random.integers(0, 3, (1, 9)),
        "two columns": random.integers(0, 3, (9, 2)),
    }
    return {name: np.ascontiguousarray(image.astype(np.uint8)) for name, image in images.items()}


def assert_equal_to_skimage(image: np.ndarray, device: torch.device) -> None:
    for method in METHODS:
        codes = local_binary_pattern(torch.from_numpy(image).to(device), method=method).cpu().numpy()
        np.testing.assert_array_equal(codes, skimage_lbp(image, 8, 1, method), err_msg=method)


@pytest.mark.parametrize("name", made_up_images())
def test_equals_skimage(device, name):
    assert_equal_to_skimage(made_up_images()[name], device)


@pytest.mark.parametrize("folder", ["lungs", "kvasir-seg"])
def test_equals_skimage_on_real_images(device, real_data: Path, folder):
    from PIL import Image

    files = sorted((real_data / folder / "images").iterdir())[:100:25]
    assert len(files) == 4
    for file in files:
        assert_equal_to_skimage(np.array(Image.open(file).convert("L")), device)


def test_batches_and_strides(device):
    batch = torch.randint(0, 256, (5, 23, 31), dtype=torch.uint8, device=device)
    codes = local_binary_pattern(batch)
    for image, code in zip(batch, codes, strict=True):
        assert torch.equal(local_binary_pattern(image), code)
    assert torch.equal(
        local_binary_pattern(batch.transpose(1, 2)), local_binary_pattern(batch.transpose(1, 2).contiguous())
    )
    assert local_binary_pattern(batch[:0]).shape == (0, 23, 31)
    expected = reference.local_binary_pattern(batch.cpu(), "default")
    assert torch.equal(codes.cpu(), expected)


def test_chunks_join():
    batch = torch.randint(100, 103, (3, 300, 301), dtype=torch.uint8)  # on the CPU three chunks of 2 ** 17 pixels
    assert torch.equal(local_binary_pattern(batch), reference.local_binary_pattern(batch, "default"))


def test_ratio_has_the_right_sign_for_every_difference():
    diagonal = torch.arange(-255, 256)[:, None]
    neighbours = torch.arange(-510, 511)[None]
    exact = 70711 * diagonal + 29289 * neighbours
    assert torch.equal(exact.sign(), (39555 * diagonal + 16384 * neighbours).sign())


def test_opcheck(device):
    image = torch.randint(0, 256, (2, 6, 7), dtype=torch.uint8, device=device)
    for images in (image, image[:0]):
        torch.library.opcheck(torch.ops.medveil.local_binary_pattern.default, (images, "uniform"))


def test_texture_map(device):
    colour = torch.randint(0, 256, (2, 3, 12, 11), dtype=torch.uint8, device=device)
    grey = grey_levels(colour)
    exact = torch.tensor([0.299, 0.587, 0.114], device=device, dtype=torch.float64)[:, None, None]
    assert ((colour * exact).sum(1) - grey).abs().max() < 0.51
    for method, largest in (("default", 255), ("uniform", 9)):
        texture = texture_map(colour, method)
        assert texture.shape == (2, 1, 12, 11) and texture.dtype == torch.float32
        assert torch.equal(texture[:, 0], local_binary_pattern(grey, method=method).float() / largest)
    # Floats are rounded to grey levels first, and three equal channels are one.
    alike = colour[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(texture_map(alike / 255), texture_map(colour[:, :1]))
    assert torch.compile(texture_map, fullgraph=True, backend="aot_eager")(colour).equal(texture_map(colour))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_binary_pattern(torch.zeros(4, 4)), "must be uint8"),
        (lambda: local_binary_pattern(torch.zeros(4, 4, dtype=torch.uint8), P=16, R=2), "only 8 points"),
        (lambda: local_binary_pattern(torch.zeros(4, 4, dtype=torch.uint8), method="var"), "must be one of"),
        (lambda: texture_map(torch.zeros(1, 2, 4, 4)), "1 or 3"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_memory_kept_since_inference_mode():
    image = torch.randint(0, 256, (19, 23), dtype=torch.uint8)

    def codes():
        with torch.inference_mode():
            yield local_binary_pattern(image)
        yield local_binary_pattern(image)

    with ThreadPoolExecutor(1) as new_thread:  # memory is kept per thread: this one has none yet
        first, second = new_thread.submit(lambda: list(codes())).result()
    assert torch.equal(first, second)
