"""A release and its key give the originals again, bit for bit, to nobody else, and all or nothing."""

import getpass
import hashlib
import os
import pty
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.cli import main
from medveil.launch.release.key import write_key
from medveil.launch.release.private import PrivateManifest
from medveil.launch.release.restore import restore
from medveil.launch.release.secret import Secret, passphrase
from tests.launch.releases import manifest, write_manifest

pytest.importorskip("cryptography")

SECRET = Secret(bytes(range(32)), is_passphrase=False)
SETTINGS = ["--method", "random", "--preset", "cpu", "--device", "cpu", "--seed", "1"]


def image(seed: int, height: int = 16, width: int = 16, *channels: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(20, 230, (height, width, *channels), dtype=np.uint8))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lossless, lossy, of another size, turned by EXIF, with two masks: all that has an original to go back to."""
    folder = tmp_path_factory.mktemp("data") / "masked"
    mask = Image.fromarray(np.pad(np.full((8, 8), 255, np.uint8), 4))
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    image(0).save(folder / "images" / "png.png")
    image(1).save(folder / "images" / "jpeg.jpg", quality=90)
    image(2, 24, 20).save(folder / "images" / "large.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image(3).save(folder / "images" / "turned.jpg", exif=exif)
    image(4).save(folder / "images" / "twice.bmp")
    for name in ("png", "jpeg", "turned"):
        mask.save(folder / "masks" / f"{name}.png")
    mask.resize((20, 24), 0).save(folder / "masks" / "large.png")
    mask.save(folder / "masks" / "twice_mask.png")
    mask.point(lambda level: level // 255).save(folder / "masks" / "twice_mask_1.png")
    return folder


@pytest.fixture(scope="module")
def keyed(masked: Path, raw_key: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The release of ``masked`` at 16 pixels, and its key."""
    folder = tmp_path_factory.mktemp("release")
    out, key = folder / "out", folder / "all.key"
    where = ["--data", str(masked), "--out", str(out), "--size", "16"]
    assert main(["protect", *where, *SETTINGS, "--key", str(key), "--key-from", raw_key]) == 0
    return out, key


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_original_comes_back(masked: Path, keyed: tuple[Path, Path], tmp_path: Path) -> None:
    out, key = keyed
    said = restore(out, key, SECRET, tmp_path / "back")
    assert said == f"restored 5 of the 5 images that {key} opens: {tmp_path / 'back'}"
    back = tmp_path / "back"
    assert names(back) == {
        *("images/png.png", "images/jpeg.png", "images/large.png", "images/turned.jpg", "images/twice.png"),
        *("masks/png.png", "masks/jpeg.png", "masks/large.png", "masks/turned.png"),
        *("masks/twice_mask.png", "masks/twice_mask_1.png"),
    }
    for name in names(masked):
        same = back / name if (back / name).exists() else (back / name).with_suffix(".png")
        assert np.array_equal(pixels(same), pixels(masked / name)), name
    # What the release turned or resized comes back as it was, to the byte.
    for name in ("images/turned.jpg", "images/large.png", "masks/large.png", "masks/twice_mask_1.png"):
        assert (back / name).read_bytes() == (masked / name).read_bytes()


def test_the_key_is_private_and_says_nothing(keyed: tuple[Path, Path]) -> None:
    out, key = keyed
    assert key.stat().st_mode & 0o777 == 0o600
    assert not any(name in key.read_bytes() for name in (b"png", b"jpeg", b"images", b"difference"))
    assert names(out.parent) >= {"all.key"}
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".all")]


def test_a_part_of_the_files(keyed: tuple[Path, Path], tmp_path: Path) -> None:
    out, key = keyed
    said = restore(out, key, SECRET, tmp_path / "back", ["t*", "png"])
    assert said.startswith("restored 3 of the 5 images")
    assert {name for name in names(tmp_path / "back") if name.startswith("images")} == {
        *("images/png.png", "images/turned.jpg", "images/twice.png")
    }
    with pytest.raises(UserError, match="opens none of --only nobody: it opens 5 images"):
        restore(out, key, SECRET, tmp_path / "none", ["nobody"])
    assert not (tmp_path / "none").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a released image changed by one byte": (lambda out, key: flip(out / "images" / "png.png"), "images/png.png is"),
    "a released mask changed by one byte": (lambda out, key: flip(out / "masks" / "jpeg.png"), "masks/jpeg.png is"),
    "a released image saved again": (
        lambda out, key: Image.fromarray(pixels(out / "images" / "png.png")).save(
            out / "images" / "png.png", compress_level=0
        ),
        "not as it was released",
    ),
    "a released image missing": (lambda out, key: (out / "images" / "twice.png").unlink(), "twice.png is missing"),
    "the key changed by one byte": (lambda out, key: flip(key), "all.key is cut or was changed"),
    "the key cut": (lambda out, key: key.write_bytes(key.read_bytes()[:-100]), "all.key is cut or was changed"),
    "the key empty": (lambda out, key: key.write_bytes(b""), "all.key is no key"),
    "no key": (lambda out, key: key.unlink(), "all.key"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_whole_restores_nothing(
    case: str, keyed: tuple[Path, Path], raw_key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(keyed[0], tmp_path / "out")
    shutil.copy(keyed[1], tmp_path / "all.key")
    damage, said = DAMAGE[case]
    damage(tmp_path / "out", tmp_path / "all.key")
    where = [str(tmp_path / "out"), "--key", str(tmp_path / "all.key"), "--out", str(tmp_path / "back")]
    assert main(["restore", *where, "--key-from", raw_key]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "all.key"}


def test_another_secret_restores_nothing(keyed: tuple[Path, Path], tmp_path: Path) -> None:
    for secret in (Secret(bytes(32), is_passphrase=False), Secret(b"passphrase", is_passphrase=True)):
        with pytest.raises(UserError, match=r"all\.key"):
            restore(*keyed, secret, tmp_path / "back")
    with pytest.raises(UserError, match="exists"):
        restore(*keyed, SECRET, keyed[0])
    assert list(tmp_path.iterdir()) == []


def test_an_original_that_changed_since_has_no_key(masked: Path, tmp_path: Path) -> None:
    data = shutil.copytree(masked, tmp_path / "data")
    out = tmp_path / "out"
    assert main(["protect", "--data", str(data), "--out", str(out), "--size", "16", *SETTINGS]) == 0
    private = PrivateManifest.needed(out, None, "")
    image(9).save(data / "images" / "png.png")
    with pytest.raises(UserError, match=r"png\.png has changed since it was protected"):
        write_key(out, private, tmp_path / "key", SECRET)
    (data / "images" / "png.png").unlink()
    with pytest.raises(UserError, match=r"png\.png is not there any more"):
        write_key(out, private, tmp_path / "key", SECRET)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out", ".out.run"}


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 30), ("val", 8), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    path = tmp_path_factory.mktemp("npz") / "some.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def test_keys_for_parts_of_an_npz(npz: Path, raw_key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    parts = ["--key-for", f"val/*={tmp_path / 'val.key'}", "--key-for", f"train/1?={tmp_path / 'ten.key'}"]
    where = ["--data", str(npz), "--out", str(out), "--splits", "train,val"]
    keys = ["--key", str(tmp_path / "all.key"), *parts, "--key-from", raw_key]
    assert main(["protect", *where, *SETTINGS, *keys]) == 0
    assert "val.key" in capsys.readouterr().out
    given = np.load(npz)
    for key, only, said in (
        ("all.key", [], "restored 38 of the 38"),
        ("val.key", [], "restored 8 of the 8"),
        ("ten.key", [], "restored 10 of the 10"),
        ("all.key", ["train/12", "val/?"], "restored 9 of the 38"),
    ):
        back = tmp_path / f"{key}{len(only)}"
        assert restore(out, tmp_path / key, SECRET, back, only).startswith(said)
        found = np.load(back / "some.npz")
        assert found.files == given.files
        ids = [f"{split}/{i}" for split in ("train", "val") for i in range(len(given[f"{split}_images"]))]
        restored = {
            one
            for one in ids
            if np.array_equal(
                *(arrays[f"{one.partition('/')[0]}_images"][int(one.partition("/")[2])] for arrays in (given, found))
            )
        }
        expected = {
            ("all.key", 0): set(ids),
            ("val.key", 0): {one for one in ids if one.startswith("val")},
            ("ten.key", 0): {f"train/{i}" for i in range(10, 20)},
            ("all.key", 2): {"train/12", *(f"val/{i}" for i in range(8))},
        }[key, len(only)]
        assert restored == expected
        for name in ("train_labels", "val_labels", "test_images", "test_labels"):
            assert np.array_equal(given[name], found[name])


def test_a_finished_release_gets_its_key_afterwards(
    npz: Path, raw_key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["protect", "--data", str(npz), "--out", str(tmp_path / "out"), *SETTINGS]
    key = ["--key", str(tmp_path / "late.key"), "--key-from", raw_key]
    assert main(arguments) == 0
    assert main([*arguments, *key]) == 0
    printed = capsys.readouterr().out
    assert "already done" in printed
    assert "late.key" in printed
    assert "times the entropy of their noise" in printed
    assert main([*arguments, *key]) == 0
    assert "left as it is" in capsys.readouterr().out
    assert main(["restore", str(tmp_path / "out"), *key, "--out", str(tmp_path / "back")]) == 0
    given, found = np.load(npz), np.load(tmp_path / "back" / "some.npz")
    assert np.array_equal(given["train_images"], found["train_images"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--key-for", "val/*"], "--key-for val/*: give PART=PATH"),
        (["--key", "a.key", "--key-for", "val/*=a.key"], "two keys would be written as a.key"),
        (["--key", "a.key", "--key-for", "val/*=b/../a.key"], "two keys would be written as a.key"),
        (["--key", "out/a.key"], "lies in the release"),
        (["--key", "out"], "lies in the release"),
        (["--key", "there.key"], "there.key exists"),
        (["--key", "a" * 201], "--key aaaa"),
        (["--key", "a.key", "--key-from", "raw", "--key-from", "raw"], "--key-from is given 2 times for 1 keys"),
        (["--key-from", "raw"], "--key-from is given 1 times for 0 keys"),
        (["--key", "a.key"], "no passphrase for a.key: set MEDVEIL_PASSPHRASE"),
    ],
)
def test_what_is_wrong_with_keys_is_said_before_anything_is_done(
    flags: list[str],
    said: str,
    npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MEDVEIL_PASSPHRASE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.key").touch()
    (tmp_path / "raw").touch(mode=0o600)
    (tmp_path / "raw").write_bytes(bytes(32))
    assert main(["protect", "--data", str(npz), "--out", "out", *SETTINGS, *flags]) == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"there.key", "raw"}


def test_memory_is_a_few_images(tmp_path: Path) -> None:
    """Restoring 40 images of 1 MB holds a few of them at a time."""
    count, side = 40, 600
    images = np.random.default_rng(0).integers(0, 4, (1, side, side, 3), dtype=np.uint8).repeat(count, 0)
    labels = np.arange(count)[:, None] % 2
    for folder, change in (("data", 0), ("out", 3)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "x.npz", train_images=images + np.uint8(change), train_labels=labels)
    digest = hashlib.sha256((tmp_path / "out" / "x.npz").read_bytes()).hexdigest()
    samples = [{"id": f"train/{i}", "file": "x.npz", "sha256": digest, "target": i % 2} for i in range(count)]
    values = manifest(samples, "classification", "npz", (side, side), npz_sha256=digest)
    values["data"]["place"] = str(tmp_path / "data" / "x.npz")
    write_manifest(tmp_path / "out", values)
    private = PrivateManifest.needed(tmp_path / "out", None, "")
    tracemalloc.start()
    write_key(tmp_path / "out", private, tmp_path / "key", SECRET)
    restore(tmp_path / "out", tmp_path / "key", SECRET, tmp_path / "back")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * side * side * 3
    assert np.array_equal(np.load(tmp_path / "back" / "x.npz")["train_images"], images)


def typed(words: list[str], command: list[str], cwd: Path) -> tuple[int, str]:
    """What ``medveil command`` says on a terminal on which ``words`` are typed, one at each question."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.environ.pop("MEDVEIL_PASSPHRASE", None)
        os.execv(sys.executable, [sys.executable, "-m", "medveil.launch.cli", *command])
    said, waiting = b"", list(words)
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # Linux says so at the end of the other side
            break
        if waiting and said.endswith(b": "):
            os.write(terminal, waiting.pop(0).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()


def test_a_passphrase_is_asked_for_on_the_terminal_and_not_shown(
    masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice to write a key, by somebody who answers at once; once to use it, on a terminal."""
    word, asked = "a long passphrase", []
    monkeypatch.delenv("MEDVEIL_PASSPHRASE", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or word)
    key = tmp_path / "r.key"
    assert main(["protect", str(masked), *SETTINGS, "--out", str(tmp_path / "r"), "--key", str(key)]) == 0
    assert asked == [f"passphrase of {key}: ", "the same again: "]
    code, said = typed([word], ["restore", "r", "--key", "r.key", "--out", "back"], tmp_path)
    assert (code, word in said) == (0, False), said
    assert len(list((tmp_path / "back" / "images").iterdir())) == 5


def test_a_passphrase_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVEIL_PASSPHRASE", os.fsdecode(b"fa\xe7ade-fa\xe7ade"))
    assert passphrase(Path("r.key"), twice=False).value == b"fa\xe7ade-fa\xe7ade"
