"""Noise at native size against exploiters that make images smaller, beside noise that was made at their size.

``python -m tests.native_sizes KVASIR-SEG OUT [96,128]`` with 80 images of that folder, scaled up to 512 pixels with
Pillow's bicubic filter (masks: nearest): every second of them is protected at 512 pixels, resized by four resizers, and
trained on at each side; the others are the test images, resized in the same way. ``made at`` says at which size the
noise was made: 512, or that of the training (``protect --size``, Pillow's antialiased bilinear). ``clean``: of
originals, resized by Pillow. A row is written to ``OUT/native_sizes.csv`` as soon as it is known.
"""

import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medveil.launch.audit.train import ExploitJob, Place, run_exploit
from medveil.launch.cli import main
from medveil.launch.exploiters.attacks.resizing import RESIZERS

NATIVE, IMAGES = 512, 80
CHECKERS = ["--method", "pattern", "--pattern", "checkerboard", "--region", "roi", "--eps", "8/255"]
METHODS = {
    "checkerboard of 2 px": [*CHECKERS, "--cell", "1"],
    "checkerboard of 16 px": [*CHECKERS, "--cell", "8"],
    "umed, preset demo": ["--method", "umed", "--preset", "demo"],
}
"""By their names: working grids have 256 pixels, so that a cell is two pixels of 512."""

TRAINING = {"model": "unet", "width": 8, "epochs": 12, "batch_size": 8, "learning_rate": 4e-3, "evaluations": 1}
COLUMNS = ("method", "made at", "trained at", "resizer", "clean", "protected")


def scaled_up(source: Path, out: Path) -> None:
    """The first images of ``source`` as ``out/train`` and ``out/test``."""
    for number, path in enumerate(sorted((source / "images").iterdir())[:IMAGES]):
        place = out / ("test" if number % 2 else "train")
        for name, file, resample in (
            ("images", path, Image.Resampling.BICUBIC),
            ("masks", source / "masks" / f"{path.stem}.png", Image.Resampling.NEAREST),
        ):
            (place / name).mkdir(parents=True, exist_ok=True)
            with Image.open(file) as picture:
                picture.resize((NATIVE, NATIVE), resample).save(place / name / f"{path.stem}.png")


def resized(folder: Path, out: Path, side: int, resizer: str) -> Path:
    """The images of ``folder`` at ``side``, each channel as exploiters resize it, and their masks (nearest)."""
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True)
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as picture:
                if name == "masks":
                    small = picture.resize((side, side), Image.Resampling.NEAREST)
                else:
                    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
                    small = Image.fromarray(RESIZERS[resizer](image, (side, side))[0].permute(1, 2, 0).numpy())
                small.save(out / name / path.name)
    return out


def dsc(train: Path, test: Path, runs: Path, side: int) -> float:
    place = Place(runs, device="cpu", threads=1, quiet=True)
    outcome = run_exploit(ExploitJob(place, original=str(train), test=str(test), size=side, options=TRAINING))
    return 100 * outcome.last["dsc"]


def rows(folder: Path, side: int) -> Iterator[dict[str, object]]:
    """Of one side; ``folder`` holds what :func:`scaled_up` wrote."""
    tests = {one: resized(folder / "test", folder / f"test-{side}-{one}", side, one) for one in RESIZERS}
    train = resized(folder / "train", folder / f"train-{side}", side, "pillow")
    clean = dsc(train, tests["pillow"], folder / "runs", side)
    for method, options in METHODS.items():
        for made, resizers in ((side, ["pillow"]), (NATIVE, list(RESIZERS))):
            release = folder / f"release-{made}-{list(METHODS).index(method)}"
            squares = ["--size", str(side)] if made == side else []
            if not release.exists():
                where = [
                    str(folder / "train"),
                    "--out",
                    str(release),
                    "--seed",
                    "0",
                    "--device",
                    "cpu",
                    "--threads",
                    "1",
                ]
                assert main(["protect", *where, *options, *squares]) == 0
            for resizer in resizers:
                train = release
                if made != side:
                    train = resized(release, folder / f"{release.name}-{side}-{resizer}", side, resizer)
                reached = dsc(train, tests[resizer], folder / "runs", side)
                yield {
                    "method": method,
                    "made at": made,
                    "trained at": side,
                    "resizer": resizer,
                    "clean": f"{clean:.1f}",
                    "protected": f"{reached:.1f}",
                }


def run(source: Path, out: Path, sides: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as scratch, (out / "native_sizes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        scaled_up(source, Path(scratch))
        for side in sides:
            for row in rows(Path(scratch), side):
                writer.writerow(row)
                file.flush()


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), [int(one) for one in (sys.argv[3:] or ["96,128"])[0].split(",")])
