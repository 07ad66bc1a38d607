"""Local Binary Patterns of 224 x 224 grey images. Bytes: one read and one written per pixel.

Operations: four neighbours are compared (2 each with the bit), four interpolated and compared (9 each): 44 per pixel.
"""

import numpy as np
import pytest
import torch
from skimage.feature import local_binary_pattern as skimage_lbp

from benchmarks.common import batch_for, copy_of
from medveil.kernels import local_binary_pattern

SIDE = 224


@pytest.mark.parametrize("provider", ["medveil", "scikit-image", "copy"])
@pytest.mark.parametrize("method", ["default", "ror", "uniform"])
def test_lbp(measure, device, large, method, provider):
    batch = batch_for(2 * SIDE**2, large, 16)
    # Smoothed noise: textured and flat places, ties and edges, as photographs have.
    noise = torch.rand(batch, 1, SIDE, SIDE, device=device)
    image = (torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 255).to(torch.uint8)[:, 0]
    bytes_ = 2 * image.numel()
    first = image[:16].cpu().numpy()

    def skimage() -> torch.Tensor:
        return torch.from_numpy(np.stack([skimage_lbp(one, 8, 1, method) for one in first])).to(torch.uint8)

    runs = {
        "medveil": lambda: local_binary_pattern(image, method=method),
        "scikit-image": skimage,
        "copy": copy_of(bytes_, device),
    }
    if provider == "medveil":
        assert torch.equal(local_binary_pattern(image[:16], method=method).cpu(), skimage())
    if provider == "scikit-image" and large:
        pytest.skip("scikit-image is timed on the small batch")
    measure(
        provider, runs[provider], f"lbp {method} {batch}x{SIDE}x{SIDE} {device.type}", bytes_=bytes_, flops=22 * bytes_
    )
