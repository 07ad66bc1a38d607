"""Records of runs, and the report on them: a name is text whatever it holds, and only what is ours is replaced."""

import csv
import html.parser
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medveil.launch.cli import main
from medveil.launch.report.records import write_record
from medveil.launch.results import CellResult, Exploiter, Options, Outcome
from tests.launch.hostile.common import at, refused, save, tree

OUTCOME = Outcome(
    last={"accuracy": 0.6, "auc": 0.7},
    best={"accuracy": 0.7},
    inside={"accuracy": 0.9},
    curve=[{"epoch": 1, "loss": 0.5, "accuracy": 0.5}, {"epoch": 2, "loss": 0.4, "accuracy": 0.6}],
    confusion=[[2, 1], [0, 3]],
    embedding=[[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]],
    protected_classes=[1],
)


def record(**changes: Any) -> CellResult:
    values: dict[str, Any] = {
        "data": "set",
        "protector": "salm",
        "options": Options(k=10),
        "exploiter": Exploiter("resnet18", Options(width=8), "cpu"),
        "attack": "none",
        "seed": 0,
        "status": "done",
        "clean": OUTCOME,
        "protected": OUTCOME,
        "psnr": 40.0,
        "ssim": 0.9,
        "spent": {"seconds": 1.0, "seconds_per_1000_images": 2.0, "device": "cpu"},
    }
    return CellResult(**{**values, **changes})


RECORDS: list[tuple[str, Any]] = [
    ("data", 1),
    ("options", "k=10"),
    ("options", {"k": [1, 2]}),
    ("exploiter", "resnet18"),
    ("exploiter.model", None),
    ("exploiter.part", "some"),
    ("seed", 10**4000),
    ("seed", "0"),
    ("status", None),
    ("psnr", "good"),
    ("psnr", float("nan")),
    ("ssim", 10**400),
    ("clean", []),
    ("clean.last", {"accuracy": "high"}),
    ("clean.last", {"accuracy": float("nan")}),
    ("clean.curve", [1, 2]),
    ("clean.curve", [{"epoch": "one"}]),
    ("clean.confusion", [[1, 2], [3]]),
    ("clean.confusion", [[1, -2], [3, 4]]),
    ("clean.embedding", [[1.0, 2.0]]),
    ("clean.protected_classes", ["a"]),
    ("spent", {"seconds_per_1000_images": [1]}),
    ("similarity", {"ssim": "same"}),
]


@pytest.mark.parametrize(("path", "value"), RECORDS, ids=[f"{path}-{i}" for i, (path, _) in enumerate(RECORDS)])
def test_a_record_that_is_not_one_is_refused(
    path: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_record(record(), tmp_path / "a")
    file.write_text(json.dumps(at(json.loads(file.read_text()), path, value)))
    refused(["report", str(tmp_path)], tmp_path, capsys, str(file), "is not a record of a run")


FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(b'{"data": "se'),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "not UTF-8": lambda path: path.write_bytes(b'{"data": "\xff"}'),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", FILES.values(), ids=list(FILES))
def test_a_file_in_a_records_place_is_refused(
    make: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(record(), tmp_path / "a")
    (tmp_path / "b").mkdir()
    make(tmp_path / "b" / "result.json")
    refused(["report", str(tmp_path)], tmp_path, capsys, str(tmp_path / "b" / "result.json"))


def arrays(path: Path, **named: Any) -> None:
    np.savez(path, **named)


def a_huge_header(path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000, 3)}".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("original.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


GREY = np.zeros((2, 8, 8, 1), np.uint8)
PICTURES: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "garbage": lambda path: path.write_bytes(b"PK\x03\x04"),
    "others": lambda path: arrays(path, other=GREY),
    "of other shapes": lambda path: arrays(path, original=GREY, protected=GREY[:1]),
    "flat": lambda path: arrays(path, original=GREY[..., 0], protected=GREY[..., 0]),
    "none": lambda path: arrays(path, original=GREY[:0], protected=GREY[:0]),
    "floats": lambda path: arrays(path, original=GREY / 2, protected=GREY / 2),
    "five channels": lambda path: arrays(path, original=np.repeat(GREY, 5, 3), protected=np.repeat(GREY, 5, 3)),
    "pickles": lambda path: arrays(path, original=np.array([{}]), protected=np.array([{}])),
    "huge": a_huge_header,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", PICTURES.values(), ids=list(PICTURES))
def test_pictures_that_are_none_are_refused(
    make: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(record(pictures="pictures.npz"), tmp_path / "a")
    make(tmp_path / "a" / "pictures.npz")
    refused(["report", str(tmp_path), "--out", str(tmp_path / "out")], tmp_path, capsys, "pictures.npz")


HOSTILE = (
    '=cmd|"/c calc"!A1 <img src=x onerror=alert(1)>" onmouseover="x $\\frac{$ \x1b[2J[a](http://x)\n![b](http://y)'
)


class Page(html.parser.HTMLParser):
    """Every tag and attribute of a page that could run something or load something from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.odd: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or (name in ("src", "href") and not (value or "").startswith(("data:", "#"))):
                self.odd.append(f"<{tag} {name}={value}>")
        if tag in ("script", "iframe", "object", "embed", "form"):
            self.odd.append(f"<{tag}>")


def test_names_in_records_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome({**OUTCOME.last, HOSTILE: 0.5}, curve=OUTCOME.curve)
    exploiter = Exploiter(HOSTILE, Options({HOSTILE: HOSTILE}))
    for i, changes in enumerate(
        (
            {"data": HOSTILE, "options": Options({HOSTILE: HOSTILE})},
            {"protector": HOSTILE},
            {"exploiter": exploiter, "clean": outcome, "protected": outcome},
            {"status": HOSTILE, "versions": {HOSTILE: HOSTILE}},
        )
    ):
        write_record(record(**changes, seed=i), tmp_path / str(i))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out"), "--title", HOSTILE]) == 0
    page = Page()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.odd == []
    text = (tmp_path / "out" / "results.md").read_text()
    assert "<img" not in text and "\x1b" not in text and "[a]" not in text.replace("\\[a]", "")
    for name in ("results.csv", "worst.csv"):
        with (tmp_path / "out" / name).open(newline="") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "@"))]
    assert "\x1b" not in capsys.readouterr().out


ODD: list[dict[str, Any]] = [
    {"clean": Outcome({"accuracy": 0.5}, curve=[{"loss": 1.0}])},
    {"clean": Outcome({"accuracy": 0.5}, curve=[{"epoch": 1, "loss": float("nan"), "accuracy": float("nan")}])},
    {"clean": Outcome({}), "protected": Outcome({})},
    {"protected": Outcome({"accuracy": 0.5}, confusion=[[1, 2, 0], [0, 0, 1], [1, 1, 1]], protected_classes=[9])},
    {"psnr": float("inf"), "similarity": {"ssim": 1.0, "psnr": float("inf")}},
    {"data": "d" * 1000, "options": Options(a="v" * 1000)},
]


def test_odd_records_are_reported(tmp_path: Path) -> None:
    """Each in a row with a sound record, and in a row of its own."""
    for number, changes in enumerate(ODD):
        write_record(record(protector=f"both {number}"), tmp_path / f"a{number}")
        write_record(record(protector=f"both {number}", seed=1, **changes), tmp_path / f"b{number}")
        write_record(record(protector=f"alone {number}", seed=2, **changes), tmp_path / f"c{number}")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 0


def test_a_report_replaces_its_own_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record(), tmp_path / "runs" / "a")
    figures = tmp_path / "paper" / "figures"
    mine = [save(figures / "figure1.png", np.zeros((4, 4))), figures / "notes.png"]
    mine[1].write_bytes(b"not a picture")
    command = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "paper")]
    assert main(command) == 0
    written = {path.name for path in figures.iterdir()} - {"figure1.png", "notes.png"}
    assert written and all(path.exists() for path in mine)
    # Of the second report, on another record, the first one's figures are gone.
    write_record(record(data="another"), tmp_path / "runs" / "a")
    assert main(command) == 0
    assert not written & {path.name for path in figures.iterdir()}
    assert all(path.exists() for path in mine)
    with Image.open(mine[0]) as picture:
        assert picture.size == (4, 4)


@pytest.mark.parametrize("name", ["results.csv", "results.md", "report.html"])
def test_a_users_file_is_not_replaced_by_a_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(record(), tmp_path / "runs" / "a")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / name).write_text("mine")
    command = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "paper")]
    refused(command, tmp_path, capsys, str(tmp_path / "paper" / name))


def test_published_values_from_a_strangers_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record(), tmp_path / "runs" / "a")
    for number, content in enumerate((b"", b"\xff\xfe", b"data,protector\n", b"a" * 100, b"\x00")):
        file = tmp_path / f"{number}.csv"
        file.write_bytes(content)
        refused(["report", str(tmp_path / "runs"), "--published", str(file)], tmp_path, capsys, str(file))
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    refused(["report", str(tmp_path / "runs"), "--published", str(tmp_path / "zero.csv")], tmp_path, capsys)
    assert not (tmp_path / "runs" / "report").exists()
    assert tree(tmp_path)
