"""The key of a release: what an authorised user needs besides it to have the originals again, bit for bit.

An original of the same form as its released image is kept as their difference, original - released modulo 256, which is
as small as the noise is simple. Any other (one that the release resized, turned upright or converted) is kept
as its whole file. Both sides' hashes are kept too: of the released file, so that a re-encoded one is not taken for it,
and of what it is restored to.
"""

import fnmatch
import hashlib
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.formats.windows import Values
from medveil.launch.data.images import decoding, read_image
from medveil.launch.data.npz_arrays import read_header
from medveil.launch.release.manifest import Manifest, Sample
from medveil.launch.release.npz import unequal_members
from medveil.launch.release.private import Original, PrivateManifest, Treated
from medveil.launch.release.restore import Bytes, Entry, check, entries_of, next_image
from medveil.launch.release.sealed import SealedReader, SealedWriter
from medveil.launch.release.secret import Secret
from medveil.launch.release.voxels import can_rebuild, difference, head_of
from medveil.launch.running.files import sha256_of, sync_folder
from medveil.launch.running.places import check_place, draft_of
from medveil.launch.running.progress import shown


@dataclass
class Written:
    """What a key holds. ``entropy``: of the noise, bytes, each image's differences on their own; ``whole``: originals
    that are kept as files, of ``whole_bytes``.
    """

    images: int = 0
    entropy: float = 0.0
    whole: int = 0
    whole_bytes: int = 0
    size: int = 0

    def line(self, path: Path) -> str:
        """For a person."""
        line = f"key: {path}, {_bytes(self.size)}, opens {self.images} images"
        if self.entropy and not self.whole_bytes:  # whole files are packed too, nobody knows how far
            line += f"; {self.size / self.entropy:.2f} times the entropy of their noise"
        if self.whole:
            line += f"; {self.whole} originals of another form are in it whole ({_bytes(self.whole_bytes)})"
        return line


def samples_of(part: str, manifest: Manifest, groups: Mapping[str, str] | None = None) -> set[str]:
    """The ids of the samples that ``part`` names: a class, a group of ``groups`` (of each id), or a pattern of ids such
    as ``patient7_*``.

    Raises :class:`UserError` when there are none.
    """
    classes, groups = manifest.data.classes or (), groups or {}
    found = {
        sample.id
        for sample in manifest.samples
        if fnmatch.fnmatchcase(sample.id, part)
        or groups.get(sample.id) == part
        or (isinstance(sample.target, int) and sample.target < len(classes) and classes[sample.target] == part)
    }
    if not found:
        raise UserError(f"no released image is of class or group {part!r} or has an id like that")
    return found


def write_key(
    release: Path,
    private: PrivateManifest,
    path: Path,
    secret: Secret,
    ids: Collection[str] | None = None,
    quiet: bool = True,
) -> Written:
    """Write the key of the samples ``ids`` of ``release`` (None: all) as ``path``, mode 0600, from their originals.

    It is written beside its name, opened again, and every original restored from it in memory, before it is renamed.
    Raises :class:`UserError` when an original is not where it was or has been changed, or ``path`` exists.
    """
    if os.path.lexists(path):
        raise UserError(f"{path} exists: choose another --key or remove it")
    check_place(path, "--key")
    manifest = Manifest.read(release)
    written = Written()
    partial = draft_of(path)
    try:
        with SealedWriter(partial, secret) as sealed, decoding():
            for entry, content in shown(
                _entries(release, manifest, private, ids, written), len(manifest.samples), f"key {path}", quiet
            ):
                sealed.add(asdict(entry), content)
        with SealedReader(partial, secret) as sealed, decoding():
            for number, entry in enumerate(entries_of(sealed)):
                check(sealed, number, entry, release)
        written.size = partial.stat().st_size
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _entries(
    release: Path,
    manifest: Manifest,
    private: PrivateManifest,
    ids: Collection[str] | None,
    written: Written,
) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    if private.data.place is None:
        raise UserError(f"{release} was made from generated images: they have no originals that a key could restore")
    root = Path(private.data.place)
    if manifest.npz is not None:
        yield from _arrays(release, manifest, root, ids, written)
        return
    by_id = {treated.id: treated for treated in private.samples}
    by_file: dict[str, list[Sample]] = {}
    for sample in manifest.samples:
        by_file.setdefault(sample.file, []).append(sample)
    masks: set[str] = set()
    for samples in by_file.values():
        if ids is None or any(sample.id in ids for sample in samples):
            written.images += len(samples)
            yield from _of_file(release, samples, by_id[samples[0].id], root, masks, written)


def _of_file(
    release: Path, samples: Sequence[Sample], treated: Treated, root: Path, masks: set[str], written: Written
) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """The entries of one released file, which all ``samples`` share: the image, then its masks but for those that are
    among ``masks`` already.
    """
    first = samples[0]
    if treated.original is None:
        raise UserError(f"the private run does not know the original of {first.id}: protect the data again")
    ids = tuple(sample.id for sample in samples)
    opened = tuple(range(len(ids)))
    path = _original(root, treated.original)
    kind = formats.kind_of(path) or "picture"
    before, after = formats.read(path, kind, identified=True), formats.read(release / first.file, kind, identified=True)
    if _is_alike(path, kind, before.values, after.values):
        content, head = difference(before.values, after.values), head_of(path, kind)
        written.entropy += _entropy(np.frombuffer(content, np.uint8).reshape(before.values.dtype.itemsize, -1))
        name = treated.original.file
        name = str(Path(name).with_suffix(Path(first.file).suffix)) if kind == "picture" else name
        digest = hashlib.sha256(before.values.tobytes()).hexdigest()
        entry = Entry(name, "difference", ids, first.file, first.sha256, digest, "", opened, kind, len(head))
        yield entry, [head, content]
    else:
        written.whole, written.whole_bytes = written.whole + 1, written.whole_bytes + path.stat().st_size
        entry = Entry(treated.original.file, "file", ids, first.file, first.sha256, treated.original.sha256, "", opened)
        yield entry, [path.read_bytes()]
    for one in treated.masks:
        assert first.mask is not None
        assert first.mask_sha256 is not None
        mask = _original(root, one)
        if one.file in masks:
            continue
        masks.add(one.file)
        if len(treated.masks) == 1 and _same(mask, release / first.mask):
            name, digest = str(Path(one.file).with_suffix(Path(first.mask).suffix)), first.mask_sha256
            yield Entry(name, "copy", ids, first.mask, digest, digest, "", opened), []
        else:
            written.whole_bytes += mask.stat().st_size
            entry = Entry(one.file, "file", ids, first.mask, first.mask_sha256, one.sha256, "", opened)
            yield entry, [mask.read_bytes()]


def _original(root: Path, original: Original) -> Path:
    path = root / original.file
    if not path.is_file():
        raise UserError(f"{path} is not there any more: a key is made from the originals that were protected")
    if sha256_of(path) != original.sha256:
        raise UserError(f"{path} has changed since it was protected: a key is made from the originals as they were")
    return path


def _is_alike(path: Path, kind: Kind, before: Values, after: Values) -> bool:
    """Whether the released values and their difference give what the original stores."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return not read_image(path).changes if kind == "picture" else can_rebuild(path, kind)


def _same(mask: Path, released: Path) -> bool:
    if formats.kind_of(mask) != "picture" or formats.kind_of(released) != "picture":
        return False
    before = read_image(mask)
    return not before.changes and np.array_equal(before.pixels, read_image(released).pixels)


def _arrays(
    release: Path, manifest: Manifest, original: Path, ids: Collection[str] | None, written: Written
) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """One entry for each protected split of an npz."""
    assert manifest.npz is not None
    assert manifest.npz_sha256 is not None
    splits: dict[str, list[str]] = {}
    for sample in manifest.samples:
        splits.setdefault(sample.id.partition("/")[0], []).append(sample.id)
    if not original.is_file():
        raise UserError(f"{original} is not there any more: a key is made from the originals that were protected")
    with zipfile.ZipFile(original) as before, zipfile.ZipFile(release / manifest.npz) as after:
        if differing := unequal_members(before, after, {f"{split}_images.npy" for split in splits}):
            raise UserError(f"{original} has changed since it was protected: {', '.join(differing)} differs")
        for split, samples in splits.items():
            opened = tuple(i for i, sample in enumerate(samples) if ids is None or sample in ids)
            written.images += len(opened)
            restored = hashlib.sha256()
            for image, _ in _image_pairs(before, after, split, set(opened), len(samples)):
                restored.update(image.tobytes())
            content = _differences(_image_pairs(before, after, split, set(opened), len(samples)), written)
            entry = Entry(
                name=manifest.npz,
                form="array",
                samples=tuple(samples),
                released=manifest.npz,
                released_sha256=manifest.npz_sha256,
                sha256=restored.hexdigest(),
                split=split,
                opened=opened,
            )
            yield entry, content


def _image_pairs(
    before: zipfile.ZipFile, after: zipfile.ZipFile, split: str, opened: Collection[int], count: int
) -> Iterator[tuple[Bytes, Bytes]]:
    """Of each of the ``count`` images (or slices) of a split what it is restored to, and what was released."""
    with before.open(f"{split}_images.npy") as old, after.open(f"{split}_images.npy") as new:
        header = read_header(new)
        if read_header(old) != header:
            raise UserError(f"{before.filename} has changed since it was protected: {split}_images has another shape")
        for i in range(count):
            original, released = (next_image(file, header.shape, count) for file in (old, new))
            yield (original if i in opened else released), released


def _differences(pairs: Iterable[tuple[Bytes, Bytes]], written: Written) -> Iterator[bytes]:
    for original, released in pairs:
        changed = original - released
        written.entropy += _entropy(changed[None])
        yield changed.tobytes()


def _entropy(planes: Bytes) -> float:
    """The empirical entropy of values times their number, in bytes. ``planes``: their bytes, low ones first."""
    size, count = planes.shape
    if size == 1:
        counts = np.bincount(planes[0], minlength=256)
    else:
        counts = np.unique(np.ascontiguousarray(planes.T).view(f"u{size}"), return_counts=True)[1]
    shares = counts[counts > 0] / count
    return float(-(shares * np.log2(shares)).sum() * count / 8)


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
