"""Releases at the size of their originals: no image is resampled, and the bound holds at that size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medveil.launch.cli import main
from medveil.launch.data import open_data
from medveil.launch.data.native import keep_largest, native_noise, spread
from medveil.launch.release.survival import SIDES, Survival, mean_square, warning
from medveil.veil.pipeline import RESIZERS
from tests.launch.releases import both_manifests

SIZES = {"wide": (40, 64), "tall": (70, 36), "small": (20, 24), "colour": (40, 64)}
"""Height and width."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three sizes and both kinds, each with a disc as its mask; grey photographs are JPEG."""
    folder = tmp_path_factory.mktemp("data") / "mixed"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        shape = (height, width, 3) if name == "colour" else (height, width)
        image = Image.fromarray(rng.integers(30, 220, shape, dtype=np.uint8))
        image.save(folder / "images" / f"{name}.{'jpg' if name == 'tall' else 'png'}")
        row, column = np.mgrid[:height, :width]
        disc = (row - height / 2) ** 2 + (column - width / 2) ** 2 < (min(height, width) / 3) ** 2
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
    return folder


def pixels(folder: Path, name: str) -> np.ndarray:
    (path,) = folder.glob(f"{name}.*")
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def protect(data: Path, out: Path, *more: str) -> Path:
    settings = ["--preset", "cpu", "--device", "cpu", "--seed", "1"]
    assert main(["protect", "--data", str(data), "--out", str(out), *settings, *more]) == 0
    return out


def test_every_image_keeps_its_size_and_its_kind(mixed: Path, tmp_path: Path) -> None:
    out = protect(mixed, tmp_path / "out", "--method", "random", "--eps", "3/255")
    for name, size in SIZES.items():
        before, after = pixels(mixed / "images", name), pixels(out / "images", name)
        assert after.shape == before.shape == (*size, 3)[: before.ndim]
        change = np.abs(after - before)
        assert change.max() == 3
        mask = pixels(out / "masks", name)
        assert np.array_equal(mask, pixels(mixed / "masks", name))
        changed = change if change.ndim == 2 else change.max(2)
        # The support is the lesion with a band around it: all of the one is changed, and little besides.
        assert (changed[mask > 0] > 0).mean() > 0.95
        assert (changed[mask == 0] > 0).mean() < 0.35
    manifest = both_manifests(out)
    assert {sample["id"]: tuple(sample["size"]) for sample in manifest["samples"]} == SIZES
    assert manifest["data"]["size"] == [224, 224]


def test_the_noise_is_that_of_the_working_grid_cell_by_cell(mixed: Path, tmp_path: Path) -> None:
    out = protect(mixed, tmp_path / "out", "--method", "random")
    fitted = protect(mixed, tmp_path / "squares", "--method", "random", "--size", "224")
    squares = open_data(str(mixed), size=224)
    index = squares.data.ids.index("wide")
    noise = pixels(fitted / "images", "wide")[:, :, 1] - squares.data.read([index]).images[0, 1].numpy().astype(int)
    row = (np.arange(40) + 0.5) * 224 / 40
    column = (np.arange(64) + 0.5) * 224 / 64
    expected = noise[row.astype(int)[:, None], column.astype(int)]
    found = pixels(out / "images", "wide") - pixels(mixed / "images", "wide")
    assert np.array_equal(found, expected)


def test_a_release_opens_as_its_original_does(mixed: Path, tmp_path: Path) -> None:
    out = protect(mixed, tmp_path / "out", "--method", "random")
    for size in (None, 96):
        given, found = open_data(str(mixed), size=size).data, open_data(str(out), size=size).data
        assert (given.size, list(given.ids), given.channels) == (found.size, list(found.ids), found.channels)
        assert torch.equal(given.read(range(4)).targets, found.read(range(4)).targets)


def test_a_share_of_the_values_is_kept_at_the_native_size(mixed: Path, tmp_path: Path) -> None:
    """SALM may change a tenth of an image's values; the cells of a grid that is no multiple would be more."""
    for i, name in enumerate(SIZES):
        path = next((mixed / "images").glob(f"{name}.*"))
        folder = tmp_path / "classes" / ("a" if i % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(folder / f"{name}.png")
    salm = ["--method", "salm", "--k", "10", "--mode", "strict", "--steps", "1", "--batch-size", "4"]
    small = ["--width", "2", "--transforms", "1", "--pgd-steps", "20"]
    out = protect(tmp_path / "classes", tmp_path / "out", *salm, *small)
    for sample in both_manifests(out)["samples"]:
        assert 0.05 < sample["changed"] <= 0.1
        assert sample["protected"]


def test_cells_are_spread_by_the_centres_of_pixels() -> None:
    cells = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert spread(cells, (2, 3)).tolist() == cells.tolist()
    assert spread(cells, (1, 6))[0].tolist() == [[3, 3, 4, 4, 5, 5]]
    assert spread(cells, (4, 2))[0].tolist() == [[0, 2], [0, 2], [3, 5], [3, 5]]
    three = np.stack([cells[0], cells[0] + 10, cells[0] + 20])
    assert native_noise(three, (2, 3), 1).tolist() == (cells[0] + 10).tolist()
    assert native_noise(three, (2, 3), 3)[1, 2].tolist() == [5, 15, 25]


def test_of_equal_changes_the_first_are_kept() -> None:
    change = np.array([[1.0, 3.0, 3.0], [0.0, 3.0, 2.0]])
    assert keep_largest(change, 2).tolist() == [[False, True, True], [False, False, False]]
    assert keep_largest(change, 9).all()


@pytest.mark.parametrize("size", [(30, 45), (1, 7)])
def test_what_survives_is_what_each_resizer_leaves(size: tuple[int, int]) -> None:
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for side in SIDES:
        for name, resize in RESIZERS.items():
            left = float(resize(noise, (side, side)).square().mean())
            assert mean_square(noise, name, side) == pytest.approx(left, rel=1e-4), (side, name)


def test_what_survives_resizing_is_measured_and_warned_of() -> None:
    """A checkerboard of single pixels is gone at half the size, a constant is not."""
    row, column = np.mgrid[:448, :448]
    board = torch.from_numpy(np.where((row + column) % 2, 4.0, -4.0))[None, None]
    survival = Survival()
    survival.add(board)
    shares = survival.shares()
    assert shares["224"]["area"] == 0
    assert shares["224"]["pillow"] < 0.01
    assert "0% of the noise (RMS) is left after resizing to" in str(warning(shares))
    coarse = Survival()
    coarse.add(torch.full((1, 1, 448, 448), 3.0))
    assert set(coarse.shares()["224"].values()) == {1.0}
    assert warning(coarse.shares()) is None
    assert warning({}) is None
