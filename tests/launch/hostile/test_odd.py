"""What a person may type by mistake: other files than those that are meant, and values that are none."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from medveil.launch.cli import main
from medveil.launch.report.records import write_record
from tests.launch.hostile.common import noise, refused, save
from tests.launch.hostile.test_records import record

SWEEP = "name: s\ngrid:\n  - {data: phantom:seg:4:16, protectors: [random]}\n"
VALUES = "data,protector,exploiter,attack,metric,value\na,b,c,d,e,"
FILES = {
    "file": "no data",
    "none": "",
    "good.yaml": SWEEP,
    "cut.yaml": "name: a\ngrid: [\n",
    "list.yaml": "- a\n",
    "nan.yaml": f"{SWEEP}seeds: [.nan]\n",
    "inf.yaml": SWEEP.replace("[random]", "[{method: pattern, psnr: .inf}]"),
    "nan.csv": f"{VALUES}nan\n",
    "inf.csv": f"{VALUES}inf\n",
    "short.key": "not a key",
    "half/sweep.json": "{}",
    "cut/sweep.json": "[[[",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, raw_key: str) -> Path:
    """A release r of the folder data with its key, two of classes c and d, and much that is none of these."""
    root = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for i in range(6):
            save(root / "data" / "images" / f"{i}.png", noise(i))
            save(root / "data" / "masks" / f"{i}.png", np.pad(np.full((8, 8), 255), 4))
        quick = ["protect", "--method", "random", "--threads", "1", "--seed", "1"]
        shutil.copy(raw_key, "secret")
        assert main([*quick, "data", "--out", "r", "--key", "r.key", "--key-from", "secret", "--holdout", "0.3"]) == 0
        assert main([*quick, "phantom:cls:6:16", "--out", "c", "--classes", "0"]) == 0
        for name in ("lacking", "unlisted"):
            shutil.copytree(root / "r", root / name)
            shutil.copytree(root / ".r.run", root / f".{name}.run")
        next((root / "lacking" / "images").iterdir()).unlink()
        (root / "unlisted" / "manifest.json").unlink()
        (root / "empty").mkdir()
        for name, content in FILES.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(content)
        for name, target in (("loop", "pool"), ("pool", "loop"), ("zero", "/dev/zero")):
            (root / name).symlink_to(target)
        os.mkfifo(root / "pipe")
        write_record(record(), root / "runs" / "a")
    return root


AUDIT = "audit r --test phantom:seg:20:16"
OPENED = "--key r.key --key-from secret"
RESTORE = "restore r --out back --key-from secret --key"
LONG = "\N{GRINNING FACE}" * 75
CASES = [
    *(f"audit {name} --test phantom:seg:4:16" for name in ("missing", "file", "empty", "lacking", "unlisted", "loop")),
    *(f"audit {name} --test phantom:seg:4:16" for name in ("pipe", "/dev/full", LONG)),
    *(f"audit r --original {name}" for name in ("missing", "file", "empty", "loop", "pipe", "phantom:cls:6:16")),
    *(f"audit r --test {name}" for name in ("missing", "file", "loop", "phantom:cls:6:16", "phantom:seg:nan", "r")),
    *(f"{AUDIT} --part protected --run {name}" for name in ("missing", "file", "loop", "empty")),
    *(f"{AUDIT} --attacks pretrained --weights {name}" for name in ("missing", "empty", "loop", "pipe", "zero")),
    *(f"{AUDIT} --seeds {value}" for value in ("nan", "1e3", "-1", ",")),
    *(f"{AUDIT} --width {value}" for value in ("0", "9" * 9)),
    *(f"{AUDIT} --epochs {value}" for value in ("0", "inf", "9" * 400)),
    *(f"{AUDIT} --learning-rate {value}" for value in ("nan", "inf", "-1")),
    *(f"{AUDIT} --threads {value}" for value in ("0", "9" * 20)),
    *(f"{AUDIT} --attacks {value}" for value in ("jpeg101", "jpegnan", "blur+", "+", LONG, "adv-1", "standard,x")),
    *(f"{AUDIT} --exploiter {value}" for value in ("smp:", "smp:unet:NONSENSE", "../unet", LONG, "resnet18")),
    *(f"{AUDIT} --out {name}" for name in ("file", "loop", "/dev/full", "/dev/full/x")),
    "audit r --test phantom:seg:4:16 --attacks jpeg",
    *(f"report {name}" for name in ("missing", "file", "empty", "loop", "pipe", LONG)),
    *(f"report runs --out {name}" for name in ("file", "loop", "/dev/full", "pipe")),
    *(f"report runs --published {name}" for name in ("missing", "empty", "loop", "pipe", "nan.csv", "inf.csv")),
    "report runs more",
    *(f"restore {name} --out back {OPENED}" for name in ("missing", "file", "empty", "lacking", "loop", "c")),
    *(f"{RESTORE} {name}" for name in ("missing", "empty", "loop", "pipe", "zero", "none", "short.key", "r", LONG)),
    *(f"{RESTORE} r.key --only {name}" for name in ("nothing", "[", "../*", LONG)),
    *(f"{RESTORE} r.key --key-from {name}" for name in ("missing", "empty", "loop", "pipe", "zero", "file")),
    *(f"restore r {OPENED} --out {name}" for name in ("r", "r/originals", "file/x", "loop", "/dev/full", LONG)),
    *(f"merge c {name} --out m" for name in ("missing", "file", "empty", "loop", "pipe", "lacking", "unlisted", "r")),
    *(f"merge c c --out m --run {name} --run {name}" for name in ("missing", "file", "loop", "empty")),
    *(f"merge c c --out {name}" for name in ("loop", "/dev/full", "r/x")),
    "merge c --out m",
    "merge c c --out m --run .c.run",
    *(f"sweep {name}" for name in ("missing.yaml", "empty", "loop", "pipe", "zero", "none", "cut.yaml", "list.yaml")),
    *(f"sweep {name}" for name in ("nan.yaml", "inf.yaml", "r.key", LONG, "good.yaml good.yaml", "status a b")),
    *(f"sweep {what} {name}" for what in ("status", "cancel") for name in ("missing", "file", "empty", "half", "cut")),
    *(f"sweep good.yaml --data {value}" for value in ("x", "=x", "x=", "mine=missing")),
    *(f"sweep good.yaml --wait-minutes {value}" for value in ("nan", "-1", "inf")),
    *(f"sweep good.yaml --runs {name}" for name in ("file", "loop", "/dev/full", "pipe", "r")),
    *(f"sweep good.yaml --threads {value}" for value in ("0", "nan", "9" * 20)),
    "sweep good.yaml --size 1",
]


@pytest.mark.parametrize("command", CASES, ids=lambda command: command if len(command) < 80 else command[:60])
def test_what_is_none_is_one_line(
    command: str, odd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(odd)
    refused(command.split(" "), odd, capsys)


def test_originals_are_not_restored_into_a_release(
    odd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(odd)
    refused(f"restore r {OPENED} --out r/originals".split(), odd, capsys, "lies in the release")
