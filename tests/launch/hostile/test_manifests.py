"""A stranger's manifest causes one line that names it, exit code 2, and nothing that is written or read elsewhere."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medveil.launch.cli import main
from tests.launch.hostile.common import Values, at, masked_release, noise, npz_release, refused, save, sha256
from tests.launch.releases import both_manifests, write_manifest

MANIFESTS: list[tuple[str, Any]] = [
    ("samples", [1, 2, 3]),
    ("samples", []),
    ("samples", None),
    ("samples", {"0": 1}),
    ("samples.0", None),
    ("samples.0.id", ...),
    ("samples.0.id", 3),
    ("samples.0.id", "b"),
    ("samples.0.id", "a\x1b[2J"),
    ("samples.0.file", ...),
    ("samples.0.file", None),
    ("samples.0.file", 7),
    ("samples.0.file", ""),
    ("samples.0.file", "."),
    ("samples.0.file", ".."),
    ("samples.0.file", "../payload.txt"),
    ("samples.0.file", "images/../../payload.txt"),
    ("samples.0.file", "/etc/passwd"),
    ("samples.0.file", "images//a.png"),
    ("samples.0.file", "images\\a.png"),
    ("samples.0.file", "images/a\x00.png"),
    ("samples.0.file", "images/\x1b[31ma.png"),
    ("samples.0.file", "images/b.png"),
    ("samples.0.file", "manifest.json"),
    ("samples.0.file", "x" * 5000),
    ("samples.0.file", f"images/{'x' * 256}"),
    ("samples.0.sha256", ...),
    ("samples.0.sha256", None),
    ("samples.0.sha256", "0"),
    ("samples.0.mask", "../victim.png"),
    ("samples.0.mask", ...),
    ("samples.0.mask_sha256", ...),
    ("samples.0.target", 1),
    ("samples.0.target", "cat"),
    ("samples.0.target", [0, 1]),
    ("samples.0.target", 10**9),
    ("samples.0.target", -1),
    ("samples.0.protected", "yes"),
    ("samples.0.max_change", 256),
    ("samples.0.changed", float("nan")),
    ("samples.0.source_size", [0, 16]),
    ("held_out", ...),
    ("held_out", None),
    ("held_out", 5),
    ("held_out", ["x\x1b]0;y\x07", "z"]),
    ("part", "half"),
    ("part", {"classes": 3, "share": None}),
    ("part", {"classes": None, "share": 101}),
    ("totals", ...),
    ("totals", "many"),
    ("totals.psnr", float("nan")),
    ("totals.psnr", "good"),
    ("totals.samples", 5),
    ("dropped", ...),
    ("dropped", [{"id": "x"}]),
    ("budget", 8),
    ("budget.levels", 2.5),
    ("data", []),
    ("data.classes", ...),
    ("data.classes", "abc"),
    ("data.kind", "zip"),
    ("data.task", "art"),
    ("data.size", [16]),
    ("data.channels", 0),
    ("data.name", "a\nb"),
    ("method", None),
    ("method", "\x1b[2Jumed"),
    ("versions", ...),
    ("format", 3),
    ("format", "1"),
    ("npz_sha256", "0" * 64),
    ("data.kind", "class-folder"),
]


@pytest.mark.parametrize(("path", "value"), MANIFESTS, ids=[f"{path}-{i}" for i, (path, _) in enumerate(MANIFESTS)])
def test_a_manifest_that_is_not_one_is_refused(
    path: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "payload.txt").write_text("outside")
    for number, letters in enumerate(("abcd", "efgh")):
        values = masked_release(tmp_path / f"r{number}", letters)
        write_manifest(tmp_path / f"r{number}", at(values, path, value) if number == 0 else values)
    argv = ["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "out")]
    refused(argv, tmp_path, capsys, str(tmp_path / "r0" / "manifest.json"), "is not the manifest of a release")


def of_bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


FILES: dict[str, Callable[[Path], object]] = {
    "absent": lambda path: None,
    "empty": of_bytes(b""),
    "cut": of_bytes(b'{"format": 1, "samp'),
    "not UTF-8": of_bytes(b'{"format": "\xff\xfe"}'),
    "a list": of_bytes(b"[]"),
    "a number": of_bytes(b"7"),
    "nested 100,000 deep": of_bytes(b'{"a":' + b"[" * 100_000),
    "a number of 5,000 digits": of_bytes(b'{"format": ' + b"9" * 5000 + b"}"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("make", FILES.values(), ids=list(FILES))
def test_a_file_in_the_manifests_place_is_refused(
    make: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masked_release(tmp_path / "r")
    make(tmp_path / "r" / "manifest.json")
    refused(["audit", str(tmp_path / "r"), "--test", "phantom:seg:4:16"], tmp_path, capsys, "manifest.json")


def copied(tmp_path: Path, name: str, digest: str) -> Values:
    """A release whose first image is said to be the file ``name``."""
    values = masked_release(tmp_path / "r0")
    (tmp_path / "r0" / "images" / "a.png").unlink()
    return at(at(values, "samples.0.file", name), "samples.0.sha256", digest)


def through_a_link(tmp_path: Path) -> Values:
    (tmp_path / "r0" / "images").mkdir(parents=True)
    (tmp_path / "r0" / "images" / "l").symlink_to(tmp_path / "elsewhere")
    return copied(tmp_path, "images/l/pay.png", sha256(tmp_path / "elsewhere" / "pay.png"))


def a_link(tmp_path: Path) -> Values:
    values = copied(tmp_path, "images/a.png", sha256(tmp_path / "elsewhere" / "pay.png"))
    (tmp_path / "r0" / "images" / "a.png").symlink_to(tmp_path / "elsewhere" / "pay.png")
    return values


def an_unlisted_link(tmp_path: Path) -> Values:
    values = masked_release(tmp_path / "r0")
    (tmp_path / "r0" / "more").symlink_to(tmp_path / "elsewhere")
    return values


def beside(tmp_path: Path) -> Values:
    return copied(tmp_path, "../payload.png", sha256(tmp_path / "payload.png"))


@pytest.mark.parametrize("make", [beside, through_a_link, a_link, an_unlisted_link])
@pytest.mark.parametrize("command", ["merge", "audit"])
def test_no_name_in_a_manifest_leads_out_of_its_release(
    command: str, make: Callable[[Path], Values], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "payload.png", noise(1))
    save(tmp_path / "elsewhere" / "pay.png", noise(2))
    write_manifest(tmp_path / "r0", make(tmp_path))
    write_manifest(tmp_path / "r1", masked_release(tmp_path / "r1", "efgh"))
    (tmp_path / "deep" / "place").mkdir(parents=True)
    argv = {
        "merge": ["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "deep" / "place" / "m")],
        "audit": ["audit", str(tmp_path / "r0"), "--test", "phantom:seg:4:16"],
    }[command]
    refused(argv, tmp_path, capsys, str(tmp_path / "r0"))


def test_a_merge_overwrites_no_file_beside_its_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Both releases list the same file beside them; on the way out the merged one would land on it.
    for name in ("r0", "r1"):
        write_manifest(tmp_path / name, npz_release(tmp_path / name, name == "r0", "../victim.npz"))
        (tmp_path / name / "set.npz").rename(tmp_path / "victim.npz")
    refused(["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "m")], tmp_path, capsys)


def without_a_sample(folder: Path, values: Values) -> Values:
    totals = {**values["totals"], "samples": 5}
    totals |= {key: 5 for key in ("protected", "unprotected") if totals[key]}
    return {**values, "samples": values["samples"][:-1], "totals": totals}


def garbage(folder: Path, values: Values) -> Values:
    (folder / "set.npz").write_bytes(b"PK\x03\x04 and no more")
    return {**values, "npz_sha256": sha256(folder / "set.npz")}


def of_another_split(folder: Path, values: Values) -> Values:
    samples = [{**sample, "id": sample["id"].replace("train", "val")} for sample in values["samples"]]
    return {**values, "samples": samples}


def without_a_split(folder: Path, values: Values) -> Values:
    return {**values, "samples": [{**sample, "id": str(i)} for i, sample in enumerate(values["samples"])]}


def of_another_hash(folder: Path, values: Values) -> Values:
    return at(values, "samples.3.sha256", "0" * 64)


def of_numbers(folder: Path, values: Values) -> Values:
    np.savez(folder / "set.npz", train_images=np.zeros((6, 16, 16)), train_labels=np.arange(6))
    return {**values, "npz_sha256": sha256(folder / "set.npz")}


def of_an_odd_header(folder: Path, values: Values) -> Values:
    header = b"{'descr': [], 'fortran_order': {}, 'shape': ([],)}".ljust(117) + b"\n"
    with zipfile.ZipFile(folder / "set.npz", "w") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return {**values, "npz_sha256": sha256(folder / "set.npz")}


DAMAGES = [
    without_a_sample, garbage, of_another_split, without_a_split, of_another_hash, of_numbers, of_an_odd_header
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_npz_that_is_not_what_its_manifest_says_is_not_merged(
    damage: Callable[[Path, Values], Values], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("r0", "r1"):
        values = npz_release(tmp_path / name, name == "r0")
        write_manifest(tmp_path / name, damage(tmp_path / name, values))
    argv = ["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "m")]
    refused(argv, tmp_path, capsys, "train_images" if damage in (of_numbers, of_an_odd_header) else "set.npz")


def a_folder_and_a_file(folder: Path, values: Values) -> Values:
    """The first image of the second release lies where the first release has a file."""
    (folder / "images" / "e.png").rename(folder / "images" / "x")
    (folder / "images" / "a.png").mkdir()
    (folder / "images" / "x").rename(folder / "images" / "a.png" / "e.png")
    return at(values, "samples.0.file", "images/a.png/e.png")


def test_a_name_that_is_a_folder_elsewhere_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "r0", masked_release(tmp_path / "r0"))
    write_manifest(tmp_path / "r1", a_folder_and_a_file(tmp_path / "r1", masked_release(tmp_path / "r1", "efgh")))
    argv = ["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "m")]
    refused(argv, tmp_path, capsys, "two samples would be saved as images/a.png/e.png")


def lacking(values: Values) -> Values:
    totals = {**values["totals"], "samples": 3, "protected": 3}
    return {**values, "samples": values["samples"][1:], "totals": totals}


PRIVATE: dict[str, Callable[[Values], Any]] = {
    "a list": lambda values: [],
    "no totals": lambda values: at(values, "totals", ...),
    "a sample twice too few": lacking,
    "a name with an escape": lambda values: at(values, "data.name", "a\x1b[2J"),
    "held out as a number": lambda values: at(values, "held_out", 3),
    "no digest": lambda values: at(values, "public", "0"),
}


@pytest.mark.parametrize("change", PRIVATE.values(), ids=list(PRIVATE))
def test_a_private_manifest_that_does_not_fit_is_refused(
    change: Callable[[Values], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("r0", "1"), ("r1", "2")):
        command = ["protect", "--method", "random", "--data", "phantom:seg:4:16", "--empty", "release", "--seed", seed]
        assert main([*command, "--threads", "1", "--out", str(tmp_path / name)]) == 0
    (path,) = (tmp_path / ".r0.run").glob("*/private.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "m")], tmp_path, capsys)


def test_the_sound_releases_are_merged(tmp_path: Path) -> None:
    for name, letters in (("r0", "abcd"), ("r1", "efgh")):
        write_manifest(tmp_path / name, masked_release(tmp_path / name, letters))
    assert main(["merge", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "m")]) == 0
    assert len(json.loads((tmp_path / "m" / "manifest.json").read_text())["samples"]) == 8
    for name in ("n0", "n1"):
        write_manifest(tmp_path / name, npz_release(tmp_path / name, name == "n0"))
    assert main(["merge", str(tmp_path / "n0"), str(tmp_path / "n1"), "--out", str(tmp_path / "n")]) == 0
    assert both_manifests(tmp_path / "n")["totals"]["protected"] == 6
