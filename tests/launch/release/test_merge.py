"""Contributors' releases of one set of volumes as one."""

from pathlib import Path

import numpy as np

from medveil.launch.cli import main
from medveil.launch.release.manifest import Manifest


def test_slices_of_volumes_come_from_who_protected_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = rng.integers(40, 200, (6, 5, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", train_images=volumes, train_labels=np.arange(6)[:, None] % 2)
    parts = [tmp_path / f"part{i}" for i in range(2)]
    for i, part in enumerate(parts):
        more = ["--method", "random", "--device", "cpu", "--seed", "1", "--classes", str(i)]
        assert main(["protect", str(tmp_path / "set.npz"), "--out", str(part), *more]) == 0
    assert main(["merge", *map(str, parts), "--out", str(tmp_path / "merged")]) == 0
    first, second, merged = (np.load(folder / "set.npz")["train_images"] for folder in (*parts, tmp_path / "merged"))
    assert np.array_equal(merged[0::2], first[0::2]) and np.array_equal(merged[1::2], second[1::2])
    assert len(Manifest.read(tmp_path / "merged").samples) == 30
