"""Does noise that was bound in windows act on models that normalise values in another way?

``python -m tests.normalisations docs/results/medical`` in the project's folder writes ``normalisations.csv`` and
``normalisations.md``. It needs medveil[medical] and nilearn. Two sets are made of files that come with packages, each
protected by a checkerboard of 4 grey levels on its masks, and audited by a narrow U-Net under every normalisation:

- ``mni``: nilearn's T1 template, every third pixel, in blocks of 8 axial slices; its mask is where the template of grey
  matter is above half. Every other block is trained on, those between are tested on.
- ``ct``: pydicom's CT_small, its left half to train, its right half to test: crops of 64 pixels, one every 4 rows, as
  they are and upside down. Its mask is made: where the CT, smoothed over 5x5 pixels, is of -20 to 120 HU, which is the
  muscle. Its noise is bound under the three windows of all CT.
"""

import csv
import itertools
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from medveil.launch.audit.config import Audit
from medveil.launch.cli import main
from medveil.launch.jobs.audit import run_audit
from medveil.launch.release.private import PrivateManifest
from medveil.launch.results import CellResult

LOOKS = ("window", "min-max", "percentile", "z-score")
PROTECT = ("--method", "pattern", "--pattern", "checkerboard", "--region", "roi", "--eps", "4/255", "--seed", "0")
TRAINING = {"model": "unet", "width": 8, "epochs": 60, "batch_size": 8, "learning_rate": 4e-3, "evaluations": 1}
COLUMNS = ("set", "normalisation", "rms", "max", "clean", "protected")
BLOCK, SIDE, EVERY = 8, 64, 4
MUSCLE = (-20, 120)
HEAD = """# Noise under other normalisations

`python -m tests.normalisations docs/results/medical`, one seed, one CPU core. A checkerboard of 4 grey levels on the
masks; `rms` and `max`: of the change where there is one, in grey levels of each normalisation; `clean` and `protected`:
DSC in percent on clean slices of the test half after 60 epochs of a U-Net of width 8 that normalises in that way in
training and test. The sets are small and made for this: the module says how. Their masks follow the grey values, so
clean models learn them; the checkerboard does not keep others from it.

"""


def package_file(package: str, name: str) -> Path:
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent / name


def write_mni(folder: Path) -> None:
    import nibabel

    read = [
        np.asarray(
            nibabel.load(
                package_file("nilearn", f"datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
            ).dataobj
        )[::3, ::3]
        for name in ("t1", "gm")
    ]
    image, grey = read[0], (read[1] > read[1].max() / 2).astype(np.uint8)
    for number, first in enumerate(range(48, 144, BLOCK)):
        place = folder / ("test" if number % 2 else "train")
        for name, array in (("images", image), ("masks", grey)):
            (place / name).mkdir(parents=True, exist_ok=True)
            part = np.ascontiguousarray(array[:, :, first : first + BLOCK])
            nibabel.Nifti1Image(part, np.diag([3.0, 3.0, 3.1, 1.0])).to_filename(
                place / name / f"block{number:02d}.nii.gz"
            )


def write_ct(folder: Path) -> None:
    import pydicom
    import torch

    path = package_file("pydicom", "data/test_files/CT_small.dcm")
    whole = pydicom.dcmread(path)
    stored = whole.pixel_array
    units = torch.from_numpy(stored * float(whole.RescaleSlope) + float(whole.RescaleIntercept))
    smooth = torch.nn.functional.avg_pool2d(units[None], 5, stride=1, padding=2, count_include_pad=False)[0].numpy()
    muscle = (smooth > MUSCLE[0]) & (smooth < MUSCLE[1])
    for left, place in ((0, folder / "train"), (SIDE, folder / "test")):
        for name in ("images", "masks"):
            (place / name).mkdir(parents=True)
        for number, (top, turn) in enumerate(itertools.product(range(0, SIDE + 1, EVERY), (1, -1))):
            dataset = pydicom.dcmread(path)
            crop = np.s_[top : top + SIDE, left : left + SIDE]
            dataset.Rows = dataset.Columns = SIDE
            dataset.PixelData = stored[crop][::turn].astype("<i2").tobytes()
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{1000 * (left + 1) + number}"
            dataset.PatientIdentityRemoved = "YES"
            dataset.save_as(place / "images" / f"{number:02d}.dcm")
            Image.fromarray(muscle[crop][::turn].astype(np.uint8) * 255).save(place / "masks" / f"{number:02d}.png")


def rows_of(name: str, folder: Path) -> Iterator[dict[str, object]]:
    release, original = folder / "release", folder / "train"
    assert main(["protect", str(original), "--out", str(release), *PROTECT, "--device", "cpu"]) == 0
    private = PrivateManifest.find(release)
    assert private is not None
    first = next(iter(private.visible))
    audit = Audit(release, str(original), str(folder / "test"), normalise=LOOKS, options=TRAINING, threads=1, workers=1)
    for how, cell in zip(LOOKS, run_audit(audit), strict=True):
        seen = private.visible[first if how == "window" else how]
        yield {
            "set": name,
            "normalisation": f"window {first}" if how == "window" else how,
            "rms": f"{seen['rms']:.2f}",
            "max": f"{seen['max']:.2f}",
            "clean": _percent(cell, "clean"),
            "protected": _percent(cell, "protected"),
        }


def _percent(cell: CellResult, side: str) -> str:
    outcome = getattr(cell, side)
    return f"{100 * outcome.last['dsc']:.1f}"


def run(out: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, write in (("mni", write_mni), ("ct", write_ct)):
            write(Path(scratch) / name)
            rows += list(rows_of(name, Path(scratch) / name))
    with (out / "normalisations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(str(row[name]) for name in COLUMNS) + " |" for row in rows]
    (out / "normalisations.md").write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
