"""Every real medical file that comes with a package: changed within the bound, saved, read again, restored.

``python -m tests.round_trip docs/results/medical`` in the project's folder writes ``round_trip.csv`` and
``round_trip.md``. It needs medveil[medical], SimpleITK, pydicom-data, nilearn, and python-gdcm for lossless JPEG. For
each file: its windows, and under each the largest change and its root mean square in grey levels. The noise is random
signs of 4 levels of the first window on every voxel that is no padding.
"""

import csv
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.dicom_release import Identity
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import TOLERANCE, Values, Window, check_room, percentile_window, window_levels
from medveil.launch.release.voxels import can_rebuild, difference, head_of, rebuild, undone

LEVELS = 4
PLACES = (
    ("pydicom", "data/test_files"),
    ("data_store", "data"),
    ("nibabel", "tests/data"),
    ("nilearn", "datasets/data"),
)
COLUMNS = (
    "package",
    "file",
    "kind",
    "planes",
    "height",
    "width",
    "type",
    "windows",
    "max",
    "rms",
    "SimpleITK",
    "restored",
)


def candidates() -> Iterator[tuple[str, Path, Path]]:
    """Package, its folder of files, and each file there that may be an image."""
    for package, place in PLACES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            print(f"{package} is not installed: its files are left out")
            continue
        root = Path(spec.origin).parent / place
        for path in sorted(root.rglob("*")):
            if path.is_file() and formats.kind_of(path) in ("dicom", "nifti"):
                yield package, root, path


def row_of(path: Path, kind: Kind, folder: Path) -> dict[str, object]:
    """One file there and back. Raises UserError for what is refused, AssertionError for what is not as promised."""
    stored = formats.read(path, kind, identified=True)
    window = percentile_window([stored.image_values()], stored.scale)
    if window is None:
        raise UserError(f"{path} has one value: nothing to change")
    windows = stored.windows or (window,)
    check_room(stored.step, windows, LEVELS, path.name)
    rng = np.random.default_rng(0)
    planes = []
    for plane in range(stored.planes):
        signs = rng.choice(np.array([-LEVELS, LEVELS], np.float32), stored.values[plane].shape)
        planes.append(stored.changed(plane, signs, windows, LEVELS))
    values = np.stack(planes)
    out = folder / path.name
    formats.write(out, kind, path, values, Identity(bytes(32)))
    saved = formats.read(out, kind, identified=True)
    assert np.array_equal(saved.values, values) and saved.values.dtype == stored.values.dtype
    assert (saved.scale, saved.limits, saved.spacing) == (stored.scale, stored.limits, stored.spacing)
    changes = [_changes(stored, saved, one) for one in windows]
    assert max(largest for largest, _ in changes) <= LEVELS + TOLERANCE
    whole = not can_rebuild(path, kind)
    if not whole:
        back = folder / f"back-{path.name}"
        rebuild(back, kind, head_of(path, kind), undone(saved.values, difference(stored.values, saved.values)))
        assert np.array_equal(formats.read(back, kind, identified=True).values, stored.values)
    return {
        "kind": kind,
        "planes": stored.planes,
        "height": stored.size[0],
        "width": stored.size[1],
        "type": str(stored.values.dtype),
        "windows": ", ".join(f"{one.name} {one.low:g}..{one.high:g}" for one in windows),
        "max": ", ".join(f"{largest:.2f}" for largest, _ in changes),
        "rms": ", ".join(f"{rms:.2f}" for _, rms in changes),
        "SimpleITK": _by_simpleitk(out, kind, stored, values),
        "restored": "whole file in the key" if whole else "bit for bit",
    }


def _changes(before: Stored, after: Stored, window: Window) -> tuple[float, float]:
    total, largest = 0.0, 0.0
    for plane in range(before.planes):
        pair = [window_levels(one.values[plane], one.scale, window) for one in (before, after)]
        change = np.abs(pair[1] - pair[0])
        total, largest = total + float((change**2).sum()), max(largest, float(change.max()))
    return largest, float(np.sqrt(total / before.values.size))


def _by_simpleitk(path: Path, kind: Kind, stored: Stored, values: Values) -> str:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float64)
    if kind == "nifti":
        import nibabel

        expected = np.asarray(nibabel.load(path).dataobj).T
    else:
        expected = stored.scale.values(values)
    read = read.reshape(expected.shape)
    if stored.inverted:  # it turns them
        read = read.max() + expected.min() - read
    assert np.allclose(read, expected, rtol=1e-4, atol=1e-3)
    return "equal"


def _short(reason: str, path: Path) -> str:
    """Without places of this machine, and not too long."""
    return re.sub(r"/[^ ]*/", "", reason.replace(str(path), "it"))[:200]


def main(out: Path) -> None:
    """Write the table, and say how many files were refused and why."""
    warnings.simplefilter("ignore")
    rows: list[dict[str, object]] = []
    refused: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for package, root, path in candidates():
            kind = formats.kind_of(path)
            assert kind is not None
            name = path.relative_to(root).as_posix()
            try:
                rows.append({"package": package, "file": name, **row_of(path, kind, Path(folder))})
            except UserError as error:
                refused.append((f"{package} {name}", _short(str(error), path)))
            for left in Path(folder).iterdir():
                left.unlink()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "round_trip.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        "# Round trip of real medical files",
        "",
        f"`python -m tests.round_trip docs/results/medical`: {len(rows)} files were changed within {LEVELS} levels",
        "of every declared window, saved, read back by pydicom or nibabel and by SimpleITK, and restored bit for bit;",
        f"{len(refused)} were refused, each in one line. Changes are in grey levels under each window, in its order.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(str(row[name]) for name in COLUMNS) + " |" for row in rows),
        "",
        "## Refused",
        "",
        *(f"- `{name}`: {reason}" for name, reason in refused),
    ]
    (out / "round_trip.md").write_text("\n".join(lines) + "\n")
    print(f"{len(rows)} files there and back, {len(refused)} refused: {out / 'round_trip.md'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
