"""The encrypted file that a key is: what went in comes out, and nothing else ever does."""

import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from medveil.errors import UserError
from medveil.launch.release.sealed import BLOCK, SealedReader, SealedWriter
from medveil.launch.release.secret import Secret, passphrase, secret_from_file

pytest.importorskip("cryptography")

RAW = Secret(bytes(range(32)), is_passphrase=False)
WORD = Secret(b"correct horse", is_passphrase=True)


def write(path: Path, *contents: bytes, secret: Secret = RAW) -> Path:
    with SealedWriter(path, secret) as sealed:
        for number, content in enumerate(contents):
            # In pieces of odd sizes: their borders must not matter.
            sealed.add({"name": f"patient-{number}"}, (content[i : i + 70_001] for i in range(0, len(content), 70_001)))
    return path


def read(path: Path, secret: Secret = RAW) -> list[bytes]:
    with SealedReader(path, secret) as sealed:
        return [b"".join(sealed.read(number)) for number in range(len(sealed.entries))]


def test_what_goes_in_comes_out_in_any_order_and_nothing_shows(tmp_path: Path) -> None:
    contents = [b"", b"x", os.urandom(BLOCK - 1), b"y" * (3 * BLOCK), os.urandom(2 * BLOCK + 3), b"the end of it"]
    path = write(tmp_path / "key", *contents)
    with SealedReader(path, RAW) as sealed:
        assert [entry["name"] for entry in sealed.entries] == [f"patient-{i}" for i in range(len(contents))]
        for number in (5, 0, 4, 1, 3, 2):
            assert b"".join(sealed.read(number)) == contents[number]
    assert b"patient" not in path.read_bytes()
    assert b"the end of it" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < 3 * BLOCK + BLOCK // 4


def test_nothing_is_written_twice_alike(tmp_path: Path) -> None:
    assert write(tmp_path / "a", b"same").read_bytes()[50:] != write(tmp_path / "b", b"same").read_bytes()[50:]


def test_only_its_own_secret_opens_it(tmp_path: Path) -> None:
    worded, raw = write(tmp_path / "worded", b"content", secret=WORD), write(tmp_path / "raw", b"content")
    assert read(worded, WORD) == [b"content"]
    for path, secret, said in (
        (worded, Secret(b"correct horsf", is_passphrase=True), "does not open with this passphrase"),
        (worded, RAW, "opens with a passphrase"),
        (raw, Secret(bytes(32), is_passphrase=False), "does not open with this --key-from"),
        (raw, WORD, "give it with --key-from"),
    ):
        with pytest.raises(UserError, match=said):
            read(path, secret)


def test_every_changed_byte_and_every_cut_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "key", b"some", b"content")
    whole, copy = path.read_bytes(), tmp_path / "copy"
    for at in range(len(whole)):
        for bad in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            copy.write_bytes(bad)
            with pytest.raises(UserError, match=re.escape(str(copy))):
                read(copy)
    copy.write_bytes(whole + b"\0")
    with pytest.raises(UserError, match="cut or was changed"):
        read(copy)


def test_a_block_from_elsewhere_is_seen(tmp_path: Path) -> None:
    """Blocks of equal length in another order, and the block of another file with the same secret."""
    one, two = os.urandom(BLOCK), os.urandom(BLOCK)
    first, second = write(tmp_path / "first", one, two), write(tmp_path / "second", one, two)
    whole, other = first.read_bytes(), second.read_bytes()
    begin, frame = 82, BLOCK + 21
    a, b = whole[begin : begin + frame], whole[begin + frame : begin + 2 * frame]
    for blocks in (b + a, other[begin : begin + frame] + b):
        (tmp_path / "forged").write_bytes(whole[:begin] + blocks + whole[begin + 2 * frame :])
        with pytest.raises(UserError, match="cut or was changed"):
            read(tmp_path / "forged")


def test_a_writer_that_fails_leaves_no_file_that_opens(tmp_path: Path) -> None:
    def content() -> Iterator[bytes]:
        yield b"x" * 10
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError), SealedWriter(tmp_path / "key", RAW) as sealed:
        sealed.add({}, content())
    with pytest.raises(UserError):
        read(tmp_path / "key")


def test_memory_is_a_few_blocks_however_long_the_stream(tmp_path: Path) -> None:
    tracemalloc.start()
    with SealedWriter(tmp_path / "key", RAW) as sealed:
        for _ in range(20):
            sealed.add({}, (bytes(BLOCK) for _ in range(2)))
    with SealedReader(tmp_path / "key", RAW) as sealed:
        assert sum(len(piece) for number in range(20) for piece in sealed.read(number)) == 40 * BLOCK
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * BLOCK


def test_files_that_are_no_key_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("hello")
    for name in ("pipe", "text", "missing"):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


def test_a_raw_key_must_be_private_and_32_bytes(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        secret_from_file(path)
    path.chmod(0o600)
    assert secret_from_file(path) == Secret(bytes(32), is_passphrase=False)
    path.write_bytes(bytes(33))
    with pytest.raises(UserError, match="32 random bytes"):
        secret_from_file(path)


def test_a_passphrase_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVEIL_PASSPHRASE", "pa\u0308ssword")
    composed = passphrase(Path("k"), twice=True)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE", "p\u00e4ssword")
    assert composed == passphrase(Path("k"), twice=False)
    assert "ssword" not in repr(composed)
    monkeypatch.setenv("MEDVEIL_PASSPHRASE", "short")
    with pytest.raises(UserError, match="at least 8 characters"):
        passphrase(Path("k"), twice=False)
