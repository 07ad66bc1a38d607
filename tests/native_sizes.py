"""Noise at native size against exploiters that make images smaller, beside noise that was made at their size.

``python -m tests.native_sizes KVASIR-SEG OUT WORK [96,128,224]`` with 300 images of that folder, scaled up from 224
to 512 pixels with Pillow's bicubic filter (masks: nearest): two thirds of them are protected at 512 pixels, resized by
four resizers, and trained on at each side; the others are the test images, resized in the same way. ``made at`` says at
which size the noise was made: 512, or that of the training (``protect --size``, Pillow's antialiased bilinear), with
cells that look as large. ``clean``: of originals, resized by Pillow. A row is written to ``OUT/native_sizes.csv`` as
soon as it is known; what is in ``WORK`` already is not done again.

Expected, before it was run: cells of 20 pixels are 4 of the 96 and 9 of the 224 that are trained on, so they survive
every resizer and protect as noise made at that size does, within 10 points of DSC. Of cells of 2 pixels nothing is left
after the antialiased resizers (Pillow's, areas), and the model comes within 10 points of the clean one; after those
that skip pixels they protect as noise made at that size does.
"""

import csv
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medveil.launch.audit.train import ExploitJob, Place, run_exploit
from medveil.launch.cli import main
from medveil.launch.exploiters.attacks.resizing import RESIZERS

NATIVE, IMAGES = 512, 300
GRID = 256
"""Pixels of the shorter side of the grid that noise is made on: a cell of one is two pixels of 512."""

CHECKERS = ["--method", "pattern", "--pattern", "checkerboard", "--region", "roi", "--eps", "8/255"]
CELLS = {"checkerboard of 20 px": 20, "checkerboard of 2 px": 2}
"""Methods by their names, with their cells in pixels of 512."""

UMED = "umed, preset demo"
TRAINING = {"model": "unet", "width": 8, "epochs": 12, "batch_size": 8, "learning_rate": 4e-3, "evaluations": 1}
COLUMNS = ("method", "made at", "trained at", "resizer", "clean", "protected")


def options_of(method: str, made: int) -> list[str]:
    """Of protect, for noise made at ``made`` pixels, and at NATIVE on the working grid."""
    if method == UMED:
        return ["--method", "umed", "--preset", "demo"]
    grid = GRID if made == NATIVE else made
    return [*CHECKERS, "--cell", str(max(1, round(CELLS[method] * grid / NATIVE)))]


def scaled_up(source: Path, out: Path) -> None:
    """The first images of ``source`` as ``out/train`` and ``out/test``."""
    for number, path in enumerate(sorted((source / "images").iterdir())[:IMAGES]):
        place = out / ("train" if number % 3 else "test")
        for name, file, resample in (
            ("images", path, Image.Resampling.BICUBIC),
            ("masks", source / "masks" / f"{path.stem}.png", Image.Resampling.NEAREST),
        ):
            (place / name).mkdir(parents=True, exist_ok=True)
            with Image.open(file) as picture:
                large = picture.resize((NATIVE, NATIVE), resample)
                large.save(place / name / f"{path.stem}.png", compress_level=1)


def resized(folder: Path, out: Path, side: int, resizer: str) -> Path:
    """The images of ``folder`` at ``side``, each channel as exploiters resize it, and their masks (nearest)."""
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
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
    place = Place(runs, device="cpu", threads=1, precision="bf16", quiet=True)
    outcome = run_exploit(ExploitJob(place, original=str(train), test=str(test), size=side, options=TRAINING))
    return 100 * outcome.last["dsc"]


def rows(folder: Path, side: int, method: str) -> Iterator[dict[str, object]]:
    """``folder`` holds what :func:`scaled_up` wrote."""
    tests = {one: resized(folder / "test", folder / f"test-{side}-{one}", side, one) for one in RESIZERS}
    clean = dsc(resized(folder / "train", folder / f"train-{side}", side, "pillow"), tests["pillow"], folder, side)
    for made, resizers in ((side, ("pillow",)), (NATIVE, tuple(RESIZERS))):
        release = folder / f"release-{made}-{method.replace(' ', '-')}"
        squares = ["--size", str(side)] if made == side else []
        if not release.exists():
            machine = ["--seed", "0", "--device", "cpu", "--threads", "1"]
            where = [str(folder / "train"), "--out", str(release)]
            assert main(["protect", *where, *machine, *options_of(method, made), *squares]) == 0
        for resizer in resizers:
            train = release
            if made != side:
                train = resized(release, folder / f"{release.name}-{side}-{resizer}", side, resizer)
            reached = dsc(train, tests[resizer], folder, side)
            yield {
                "method": method,
                "made at": made,
                "trained at": side,
                "resizer": resizer,
                "clean": f"{clean:.1f}",
                "protected": f"{reached:.1f}",
            }


def run(source: Path, out: Path, work: Path, sides: Sequence[int]) -> None:
    # UMed's fit at 512 is the longest of all: last.
    both = [*itertools.product(sides, CELLS), *((side, UMED) for side in sides)]
    if not (work / "train").exists():
        scaled_up(source, work)
    with (out / "native_sizes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for side, method in both:
            for row in rows(work, side, method):
                writer.writerow(row)
                file.flush()


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:4]), [int(one) for one in (sys.argv[4:] or ["96,128,224"])[0].split(",")])
