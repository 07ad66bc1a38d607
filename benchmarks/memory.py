"""Peak memory of protecting a set larger than memory: a generated file of PathMNIST-224's size and layout.

    python benchmarks/memory.py                  89,996 training images of 224x224x3, 13.5 GB; needs 45 GB of disk
    python benchmarks/memory.py --fraction 0.05  a part of it, with the bound between memory and file as much smaller

The claim is memory: the source model is as small as it goes and the fit a few steps long.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from medveil.launch.cli import main as medveil
from medveil.launch.data import store
from medveil.launch.protect.config import ProtectJob
from medveil.launch.protect.job import metrics_of

COUNTS = {"train": 89_996, "val": 10_004, "test": 7_180}
SIDE, CLASSES = 224, 9
LIMIT = 8 << 30
BLOCK = 256
OPTIONS = "--mode strict --width 4 --steps 4 --batch-size 32 --pgd-steps 1 --transforms 1 --threads 1 --seed 0"


def textures(count: int, seed: int) -> np.ndarray:
    """uint8 [count, SIDE, SIDE, 3]: waves of few grey levels and short periods, which deflate makes small."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for image in images:
        for channel, (down, across) in enumerate(rng.choice([8, 16, 32], (3, 2))):
            phase = 2 * np.pi * (rows / down + columns / across + rng.uniform())
            image[..., channel] = 128 + 8 * np.rint(7 * np.sin(phase))
    return images


def generate(path: Path, counts: dict[str, int]) -> None:
    """An npz as MedMNIST has them, written block by block."""
    bank = textures(min(BLOCK, 64), 0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True, compresslevel=1) as archive:
        for number, (split, count) in enumerate(counts.items()):
            labels = np.random.default_rng(number).integers(0, CLASSES, (count, 1), dtype=np.uint8)
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as out:
                shape = (count, SIDE, SIDE, 3)
                npy.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
                for i in range(count):
                    # Rolled by a distance of its own, so that no two images are equal.
                    image = np.roll(bank[i % len(bank)], (i // len(bank), number), (0, 1))
                    out.write((image + labels[i, 0]).tobytes())
            with archive.open(f"{split}_labels.npy", "w") as out:
                npy.write_array(out, labels)


def protect(data: str, out: str, budget: int) -> None:
    """``medveil protect`` in a process of its own."""
    store.RAM_BUDGET = budget
    raise SystemExit(medveil(["protect", "--method", "salm", "--data", data, "--out", out, *OPTIONS.split()]))


def measure(folder: Path, fraction: float) -> dict[str, Any]:
    """Generate, protect and release; the peak is the tool's own word, beside the system's of the process."""
    counts = {split: max(64, round(count * fraction)) for split, count in COUNTS.items()}
    data, out = folder / "pathmnist_224.npz", folder / "release"
    begun = time.monotonic()
    generate(data, counts)
    generated = time.monotonic() - begun
    job = multiprocessing.get_context("spawn").Process(
        target=protect, args=(str(data), str(out), int(store.RAM_BUDGET * fraction))
    )
    job.start()
    job.join()
    if job.exitcode:
        raise SystemExit(job.exitcode)
    told = metrics_of(ProtectJob("salm", str(data), out))
    assert told is not None
    return {
        "images": counts["train"],
        "array_bytes": counts["train"] * SIDE * SIDE * 3,
        "options": OPTIONS,
        "seconds_to_generate": generated,
        "file_bytes": data.stat().st_size,
        "release_bytes": (out / data.name).stat().st_size,
        **told,
        "peak_of_the_process_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10,
        "under_8_gib": told["peak_memory_bytes"] < LIMIT,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images")
    parser.add_argument("--folder", type=Path, help="for the files, which are removed (default: TMPDIR)")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="medveil-memory-") as folder:
        result = measure(Path(folder), args.fraction)
    text = json.dumps(result, indent=1)
    print(text)
    if args.record is not None:
        args.record.write_text(text + "\n")


if __name__ == "__main__":
    main()
