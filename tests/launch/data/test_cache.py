"""Sets larger than memory: unpacked once, read through few resident pages, released as any other."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from medveil.launch.cli import main
from medveil.launch.data import Opener, open_data, store
from medveil.launch.protect.job import ProtectJob, metrics_of
from tests.launch.protecting import contents


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Colour images, more than may stay in memory; those of the test split have three equal channels."""
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8) for split in ("train", "val")}
    arrays["test_images"] = np.repeat(rng.integers(0, 256, (9, 8, 8, 1), dtype=np.uint8), 3, 3)
    labels = {
        f"{split}_labels": np.arange(count)[:, None] % 3 for split, count in (("train", 20), ("val", 20), ("test", 9))
    }
    np.savez_compressed(tmp_path / "large.npz", **arrays, **labels)
    return tmp_path / "large.npz"


def test_a_large_set_is_unpacked_once(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_data(str(large))
    monkeypatch.setattr(store, "RAM_BUDGET", 100)
    folder = tmp_path / "cache"
    opener = Opener(folder)
    first = opener.open(str(large))
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    again = opener.open(str(large))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")} == written
    for source in (first, again):
        assert isinstance(source.data, store.MappedDataset)
        assert source.fingerprint == plain.fingerprint
        assert source.test is not None and plain.test is not None
        for ours, theirs in ((source.data, plain.data), (source.test, plain.test)):
            order = [3, 0, 8, 5]
            assert ours.read(order).images.equal(theirs.read(order).images)
            assert ours.read(order).targets.equal(theirs.read(order).targets)
            assert ours.read(order).ids == theirs.read(order).ids
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.npy")} == {0o600}
    np.testing.assert_array_equal(np.load(next(folder.glob("*-data.npy"))), plain.data.read(range(20)).images)


def test_what_was_not_finished_or_has_changed_is_unpacked_anew(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RAM_BUDGET", 100)
    opener = Opener(tmp_path / "cache")
    expected = opener.open(str(large)).data.read([7]).images
    note = next((tmp_path / "cache").glob("*.json"))
    pixels = next((tmp_path / "cache").glob("*-data.npy"))
    # As a killed process leaves it: pixels, perhaps wrong ones, and no note.
    note.unlink()
    pixels.write_bytes(pixels.read_bytes()[:200] + bytes(pixels.stat().st_size - 200))
    assert opener.open(str(large)).data.read([7]).images.equal(expected)
    with np.load(large) as arrays:
        np.savez_compressed(large, **{**arrays, "train_images": 255 - arrays["train_images"]})
    assert opener.open(str(large)).data.read([7]).images.equal(255 - expected)


@pytest.mark.parametrize("suffix", [".json", "-data.npy"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b"\x93NUMPY\x01\x00v\x00{'descr': '|u1'}", b"{" * 10_000])
def test_a_damaged_entry_is_unpacked_anew(
    content: bytes, suffix: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RAM_BUDGET", 100)
    opener = Opener(tmp_path / "cache")
    expected = opener.open(str(large)).data.read([7]).images
    next((tmp_path / "cache").glob(f"*{suffix}")).write_bytes(content)
    assert opener.open(str(large)).data.read([7]).images.equal(expected)


def test_a_mapped_array_gives_its_memory_back(tmp_path: Path) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile"))

    count, side = 64, 1 << 20
    written = store.allocate((count, side), tmp_path / "pixels.npy")
    assert isinstance(written, store.Mapped)
    before = resident()
    for i in range(count):
        written.array[i] = i
        written.let_go()
    read = store.open_mapped(tmp_path / "pixels.npy")
    assert [int(read.take([i])[0, -1]) for i in range(count)] == list(range(count))
    assert resident() - before < 8 << 20


def test_a_large_set_is_released_as_from_memory(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["protect", "--method", "random", "--data", str(large), "--threads", "1", "--seed", "1"]
    assert main([*flags, "--out", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    monkeypatch.setattr(store, "RAM_BUDGET", 100)
    assert main([*flags, "--out", str(tmp_path / "b")]) == 0
    assert "peak resident memory" in capsys.readouterr().out
    assert main([*flags, "--out", str(tmp_path / "c"), "--cache", str(tmp_path / "kept")]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    # Beside the run it is gone with the work; where it was asked for it stays.
    assert not (tmp_path / ".b.run" / "cache").exists()
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 2
    metrics = metrics_of(ProtectJob("random", str(large), tmp_path / "b"))
    assert metrics is not None
    assert metrics["images"] == 20
    assert metrics["peak_memory_bytes"] > 50 << 20
    assert metrics["seconds_per_1000_images"] == pytest.approx(metrics["seconds"] * 50)
    done = json.loads(next((tmp_path / ".b.run").glob("*/done.json")).read_text())
    assert done["seconds"] == metrics["seconds"]
    assert torch.equal(open_data(str(tmp_path / "b")).data.read([0]).targets, torch.tensor([0]))
