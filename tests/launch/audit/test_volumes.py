"""Audits of volumes: Dice of every label and of whole volumes, under every normalisation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medveil.dataset import Subset
from medveil.launch.cli import main
from medveil.launch.data import Opener, open_data, split_holdout
from medveil.launch.data.config import Reading
from medveil.launch.data.volumes import stacked
from medveil.launch.results import CellResult
from tests.launch.releases import both_manifests

nib = pytest.importorskip("nibabel")

QUICK = ["--epochs", "2", "--width", "2", "--batch-size", "4", "--threads", "1", "--device", "cpu", "--workers", "1"]
METRICS = {"dsc", "dsc_volume", "dsc_label_1", "dsc_label_2", "dsc_volume_label_1", "dsc_volume_label_2"}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes of 4 slices of 32 px with two bright regions, in Hounsfield units."""
    folder = tmp_path_factory.mktemp("data") / "volumes"
    for i in range(3):
        labels = np.zeros((32, 32, 4), np.uint8)
        labels[4 + i : 14 + i, 4:12], labels[18:28, 10 + i : 25] = 1, 2
        values = np.random.default_rng(i).normal(-40, 20, labels.shape) + 60 * labels
        for name, array in (("images", values.astype(np.int16)), ("masks", labels)):
            path = folder / name / f"case{i}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.Nifti1Image(array, np.diag([1.0, 1.0, 4.0, 1.0])).to_filename(path)
    return folder


@pytest.fixture(scope="module")
def release(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "out"
    settings = ["--method", "random", "--eps", "4/255", "--device", "cpu", "--seed", "1", "--windows", "ct"]
    assert main(["protect", str(volumes), "--out", str(out), *settings, "--holdout", "0.34"]) == 0
    return out


def test_every_label_and_normalisation_has_its_scores(volumes: Path, release: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    looks = "window,min-max,percentile,z-score"
    where = [str(release), "--original", str(volumes), "--out", str(out), "--windows", "ct"]
    assert main(["audit", *where, "--normalise", looks, *QUICK]) == 0
    cells = [CellResult.load(path) for path in out.glob("*/result.json")]
    options = [cell.exploiter.options for cell in cells if cell.exploiter]
    assert {one.get("normalise", "window") for one in options} == set(looks.split(","))
    for cell in cells:
        assert cell.clean is not None
        assert cell.protected is not None
        assert cell.clean.last.keys() >= METRICS
        assert cell.protected.inside.keys() >= METRICS


def test_a_normalisation_is_of_the_volume_and_not_rounded(volumes: Path) -> None:
    values = np.asarray(nib.load(volumes / "images" / "case1.nii.gz").dataobj).astype(float)
    for how, low, high in (
        ("min-max", values.min(), values.max()),
        ("z-score", values.mean() - 3 * values.std(), values.mean() + 3 * values.std()),
    ):
        data = Opener(look=how).open(str(volumes)).data
        images = data.read(range(4, 8)).images
        expected = (np.moveaxis(values, 2, 0) - low) * 255 / (high - low)
        np.testing.assert_allclose(images[:, 0].numpy(), expected, atol=1e-3)


def test_the_private_manifest_tells_how_strong_the_noise_is(volumes: Path, release: Path) -> None:
    visible = both_manifests(release)["visible"]
    assert set(visible) == {"soft tissue", "lung", "bone", "min-max", "percentile", "z-score"}
    before, after = (
        np.concatenate([np.asarray(nib.load(path).dataobj).astype(float) for path in paths], axis=2)
        for paths in zip(
            *((volumes / "images" / one.name, one) for one in sorted((release / "images").iterdir())), strict=True
        )
    )
    change = np.abs(after - before)[after != before] * 255 / 1500
    assert visible["lung"]["max"] == pytest.approx(change.max(), abs=1e-3)
    assert visible["lung"]["rms"] == pytest.approx(np.sqrt((change**2).mean()), abs=1e-3)


def test_slices_are_seen_under_windows_that_are_drawn(volumes: Path) -> None:
    drawn = Opener(reading=Reading(windows="ct"), look="drawn").open(str(volumes))
    assert {number for file in drawn.files for number in file.drawn} == {0, 1, 2}
    for file in drawn.files:
        stored = file.stored()
        for plane, index in enumerate(file.indices):
            seen = stored.grey(plane, file.windows[file.drawn[plane]])
            assert np.array_equal(drawn.data.read([index]).images[0, 0].numpy(), seen)


def test_a_model_of_three_dimensions_trains_on_whole_volumes(
    volumes: Path, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("monai")
    where = ["audit", str(release), "--original", str(volumes), "--windows", "ct", "--exploiter", "unet,unet3d", *QUICK]
    assert main([*where, "--out", str(tmp_path / "audit")]) == 0
    cells = {one.model: one for one in map(CellResult.load, (tmp_path / "audit").glob("*/result.json"))}
    assert set(cells) == {"unet", "unet3d"}
    for cell in cells.values():
        assert cell.protected is not None
        assert cell.protected.last["dsc_volume"] >= 0
    whole = cells["unet3d"].protected
    assert whole is not None
    assert whole.last["dsc_volume"] == pytest.approx(whole.last["dsc"])
    capsys.readouterr()
    assert main([*where, "--out", str(tmp_path / "blurred"), "--attacks", "blur"]) == 2
    assert "--exploiter unet3d goes with --attacks none" in capsys.readouterr().err


def test_a_hold_out_of_originals_is_that_of_a_release(volumes: Path, release: Path) -> None:
    source = open_data(str(volumes))
    kept, held = split_holdout(source.data, 0.34, 0, source.grouped())
    assert [source.data.ids[i] for i in held] == both_manifests(release)["held_out"]
    assert not {source.data.ids[i].partition("/")[0] for i in kept} & {
        source.data.ids[i].partition("/")[0] for i in held
    }


def test_volumes_are_stacked_in_their_order(volumes: Path) -> None:
    source = open_data(str(volumes))
    order = [5, 4, 0, 1, 2, 3, 8, 9]
    whole = stacked(Subset(source.data, order), source.volumes, 6, "volumes")
    assert list(whole.ids) == ["images/case1.nii.gz", "images/case0.nii.gz", "images/case2.nii.gz"]
    images, targets, _ = whole.read([0, 1])
    slices = source.data.read(range(12))
    assert torch.equal(images[0, :2], slices.images[[5, 4], 0])
    assert torch.equal(targets[1, :4], slices.targets[:4, 0])
    assert not images[0, 2:].any()
    assert not targets[1, 4:].any()


@pytest.fixture(scope="module")
def medmnist3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As medmnist writes its files of three dimensions: uint8 [N, D, H, W], labels uint8 [N, 1]."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 6), ("val", 2), ("test", 4)):
        labels = (np.arange(count) % 2).astype(np.uint8)
        arrays[f"{split}_images"] = rng.integers(0, 90, (count, 28, 28, 28), dtype=np.uint8)
        arrays[f"{split}_images"][:, 8:20, 8:20, 8:20] += 60 * labels[:, None, None, None]
        arrays[f"{split}_labels"] = labels[:, None]
    path = tmp_path_factory.mktemp("npz") / "boxes3d.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def test_medmnist_in_three_dimensions(medmnist3d: Path, tmp_path: Path, raw_key: str) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("cryptography")
    source = open_data(str(medmnist3d))
    assert (len(source.data), source.data.size, source.data.ids[29]) == (6 * 28, (28, 28), "train/1/0001")
    out, key = tmp_path / "out", ["--key", str(tmp_path / "key"), "--key-from", raw_key]
    settings = ["--method", "random", "--eps", "4/255", "--device", "cpu", "--seed", "1"]
    assert main(["protect", str(medmnist3d), "--out", str(out), *settings, *key]) == 0
    before, after = np.load(medmnist3d), np.load(out / "boxes3d.npz")
    assert before.files == after.files
    change = after["train_images"].astype(int) - before["train_images"]
    assert np.abs(change).max() == 4
    assert (change != 0).any((2, 3)).all()
    assert np.array_equal(after["test_images"], before["test_images"])
    where = ["audit", str(out), "--original", str(medmnist3d), "--out", str(tmp_path / "audit")]
    training = ["--iterations", "2", "--width", "2", "--batch-size", "4", "--threads", "1", "--device", "cpu"]
    assert main([*where, "--exploiter", "resnet18,resnet3d", *training, "--workers", "1"]) == 0
    models = {CellResult.load(path).model for path in (tmp_path / "audit").glob("*/result.json")}
    assert models == {"resnet18", "resnet3d"}
    back = ["restore", str(out), *key, "--out", str(tmp_path / "back")]
    assert main([*back, "--only", "train/1/*"]) == 0
    restored = np.load(tmp_path / "back" / "boxes3d.npz")["train_images"]
    assert np.array_equal(restored[1], before["train_images"][1])
    assert np.array_equal(restored[2], after["train_images"][2])
