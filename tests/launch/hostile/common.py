"""What the tests of malformed and hostile input share: small sound things to damage, and what a refusal is."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medveil.launch.cli import main
from tests.launch.releases import manifest

SIDE = 16
Values = dict[str, Any]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return path


def noise(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def masked_release(folder: Path, names: str = "abcd") -> Values:
    """A release with one image and mask for each letter of ``names``; the two letters after them are held out."""
    samples = []
    for name in names:
        image = save(folder / "images" / f"{name}.png", noise(ord(name)))
        mask = save(folder / "masks" / f"{name}.png", np.pad(np.full((8, 8), 255), 4))
        sample = {"id": name, "file": f"images/{name}.png", "sha256": sha256(image)}
        samples.append({**sample, "mask": f"masks/{name}.png", "mask_sha256": sha256(mask)})
    held_out = [chr(ord(max(names)) + 1), chr(ord(max(names)) + 2)]
    return manifest(samples, "segmentation", "segmentation-folder", held_out=held_out)


def npz_release(folder: Path, protected: bool = True, name: str = "set.npz") -> Values:
    """A release of six images of a train split, called ``name`` in its manifest, and a test split."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.stack([noise(i) for i in range(6)])
    labels = (np.arange(6) % 2).astype(np.uint8)[:, None]
    splits = {"train_images": images, "train_labels": labels, "test_images": 255 - images, "test_labels": labels}
    np.savez(folder / "set.npz", **splits)
    samples = [
        {"id": f"train/{i}", "file": name, "target": i % 2, "sha256": hashlib.sha256(image.tobytes()).hexdigest()}
        | {"protected": protected}
        for i, image in enumerate(images)
    ]
    return manifest(samples, "classification", "npz", npz_sha256=sha256(folder / "set.npz"))


def tree(folder: Path) -> dict[str, bytes]:
    """Everything under ``folder`` and what it holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in sorted(folder.rglob("*"))
    }


def refused(argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str], *said: str) -> None:
    """``medveil ARGV`` ends with code 2 and one line that holds each of ``said``, and writes nothing in ``folder``."""
    before = tree(folder)
    capsys.readouterr()
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err[:-1].isprintable(), ascii(printed.err)
    for part in said:
        assert part in printed.err
    assert tree(folder) == before


def at(values: Any, path: str, value: Any) -> Any:
    """``values`` with the entry that ``path`` ("samples.0.file") names replaced; Ellipsis: removed."""
    head, _, rest = path.partition(".")
    key: Any = int(head) if head.isdecimal() else head
    copied = list(values) if isinstance(values, list) else dict(values)
    if rest:
        copied[key] = at(copied[key], rest, value)
    elif value is ...:
        del copied[key]
    else:
        copied[key] = value
    return copied
