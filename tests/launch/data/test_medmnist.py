"""Every two-dimensional MedMNIST set at every size, on generated files in the exact layout; some from end to end."""

import json
from pathlib import Path
from typing import Any

import medmnist.info
import numpy as np
import pytest
import torchvision.datasets.utils

from medveil.launch.cli import main
from medveil.launch.data import open_data

SETS = [name for name in medmnist.info.INFO if not name.endswith("3d")]
COUNTS = {"train": 24, "val": 3, "test": 12}


def write(folder: Path, name: str, side: int, counts: dict[str, int] = COUNTS) -> Path:
    """Noise with the keys, shapes and types of the official file."""
    info, rng = medmnist.info.INFO[name], np.random.default_rng(0)
    labels, multi = len(info["label"]), info["task"].startswith("multi-label")
    arrays: dict[str, Any] = {}
    for split, count in counts.items():
        shape = (count, side, side) if info["n_channels"] == 1 else (count, side, side, 3)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        values = rng.integers(0, 2, (count, labels)) if multi else (np.arange(count) % labels)[:, None]
        arrays[f"{split}_labels"] = values.astype(np.uint8)
    path = folder / f"{name}{'' if side == 28 else f'_{side}'}.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The medmnist package's folder, in which every file counts as the official one."""
    monkeypatch.setattr(medmnist.info, "DEFAULT_ROOT", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.utils, "check_integrity", lambda path, md5: Path(path).exists())
    return tmp_path


@pytest.mark.parametrize("name", SETS)
def test_every_set_at_every_size(name: str, home: Path) -> None:
    info = medmnist.info.INFO[name]
    for side in (28, 64, 128, 224):
        write(home, name, side, {"train": 3, "val": 1, "test": 2})
        source = open_data(f"medmnist:{name}:{side}")
        assert source.data.size == (side, side)
        assert open_data(f"medmnist:{name}", size=side).fingerprint == source.fingerprint
        assert source.data.channels == info["n_channels"]
        assert source.class_names == [info["label"][str(i)] for i in range(len(info["label"]))]
        assert source.data.num_classes == len(info["label"])
        multi = name == "chestmnist"
        assert source.data.task == ("multilabel" if multi else "classification")
        assert source.data.read([0, 1]).targets.shape == ((2, 14) if multi else (2,))
        assert any("grades in order" in note for note in source.notes) == (name == "retinamnist")
        assert source.test is not None and len(source.test) == 2
    assert len(SETS) == 12


@pytest.mark.parametrize("name", ["chestmnist", "retinamnist", "organamnist"])
def test_protected_released_and_audited(name: str, tmp_path: Path) -> None:
    path, out = write(tmp_path, name, 28), tmp_path / "out"
    salm = ["--method", "salm", "--steps", "2", "--width", "2", "--pgd-steps", "2", "--transforms", "1"]
    assert main(["protect", *salm, "--mode", "strict", "--data", str(path), "--out", str(out), "--threads", "1"]) == 0
    with np.load(path) as before, np.load(out / path.name) as after:
        assert after.files == before.files
        for key in before.files:
            assert (after[key].dtype, after[key].shape) == (before[key].dtype, before[key].shape)
            assert np.array_equal(after[key], before[key]) == (key != "train_images")
        differs = (after["train_images"] != before["train_images"]).reshape(24, -1)
        assert differs.any(1).all()
        assert differs.sum(1).max() <= differs.shape[1] // 10
    exploit = ["--exploiter", "resnet18", "--width", "2", "--iterations", "2", "--batch-size", "8", "--workers", "1"]
    assert main(["audit", str(out), "--original", str(path), *exploit]) == 0
    record = json.loads(next((tmp_path / "out.audit").glob("*/result.json")).read_text())
    for side in ("clean", "protected"):
        assert {"accuracy", "balanced_accuracy"} <= set(record[side]["last"])
    assert set(record["similarity"]) == {"ssim", "ahash", "phash", "dhash", "nmi", "psnr"}
    assert record["psnr"] == pytest.approx(record["similarity"]["psnr"])
