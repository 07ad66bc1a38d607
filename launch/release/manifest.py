"""The public manifest of a release: what it holds, and whether its files are as it says. Read, written, checked here.

It tells a stranger what to load and whether it is whole. What was done to the images is in the private manifest
(:mod:`medveil.launch.release.private`), which stays with the run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from medveil.dataset import Task
from medveil.errors import UserError
from medveil.launch.data.source import MANIFEST, MAX_CLASSES, Kind
from medveil.launch.errors import VerificationFailed
from medveil.launch.reading import STORED, read_as
from medveil.launch.running.files import sha256_of

__all__ = ["MANIFEST", "Manifest", "Sample"]

FORMAT: Final = 2
"""Format 1 was one manifest, in the release, with all that is private now."""

_BYTES = 512 << 20
"""The most that a manifest may have: about a million samples."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that are not plain text")
    return text


def _inside(name: str) -> str:
    """A file's name within the release, that leads nowhere else."""
    parts = PurePosixPath(name).parts
    sound = name == "/".join(parts) and ".." not in parts and "\\" not in name and not name.startswith("/")
    if not sound or name == MANIFEST or len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        raise ValueError(f"{name[:80]!a} is not the name of a file within the release")
    return name


Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_inside), AfterValidator(_printable)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Label = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]
Bits = Annotated[tuple[Annotated[int, Field(ge=0, le=1)], ...], Field(max_length=MAX_CLASSES)]
Side = Annotated[int, Field(ge=1, le=1 << 24)]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One released image: its id in the original and its files within the release.

    ``sha256``: of the file, or of the image's bytes in an npz. ``target``: the class, the labels, or whether the mask
    is empty. ``size``: its own height and width, where images are released at these. ``plane``: which plane of the file
    it is, counted from 0, where the file has several.
    """

    __pydantic_config__ = STORED

    id: Text
    file: Name
    sha256: Digest
    mask: Name | None = None
    mask_sha256: Digest | None = None
    target: Literal["mask", "empty mask"] | Label | Bits
    size: tuple[Side, Side] | None = None
    plane: Annotated[int, Field(ge=0, lt=1 << 24)] | None = None

    def __post_init__(self) -> None:
        if (self.mask is None) != (self.mask_sha256 is None):
            raise ValueError("mask and mask_sha256 go together")

    def files(self) -> dict[str, str]:
        """The sample's own files and their sha256; of an npz, which all samples share, the image's."""
        mask = {} if self.mask is None or self.mask_sha256 is None else {self.mask: self.mask_sha256}
        return {self.file: self.sha256, **mask}


@dataclass(frozen=True)
class Described:
    """The data of the release. ``size``: height and width. ``classes``: what the targets' numbers mean, if known."""

    __pydantic_config__ = STORED

    kind: Kind
    task: Task
    channels: Annotated[int, Field(ge=1, le=64)]
    size: tuple[Side, Side]
    classes: Annotated[tuple[Text, ...], Field(max_length=MAX_CLASSES)] | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a release holds, and nothing that helps a thief: no method, no bound, not which images are protected.

    ``npz_sha256``: of the file, where the release is an npz. ``others``: files that belong to no sample.
    ``licence``: the terms that it is passed on under.
    """

    __pydantic_config__ = STORED

    format: Literal[1, 2]
    data: Described
    samples: Annotated[tuple[Sample, ...], Field(min_length=1)]
    npz_sha256: Digest | None = None
    others: dict[Name, Digest] = field(default_factory=dict)
    licence: Annotated[str, Field(max_length=100_000)] | None = None

    def __post_init__(self) -> None:
        """Whether the parts fit together. Raises ValueError."""
        if len({sample.id for sample in self.samples}) < len(self.samples):
            raise ValueError("two samples have the same id")
        if (self.data.kind == "npz") != (self.npz_sha256 is not None):
            raise ValueError("npz_sha256 is for releases that are an npz")
        self._check_files()
        self._check_targets()

    def _check_files(self) -> None:
        names = [name for sample in self.samples for name in sample.files()]
        if self.data.kind == "npz":
            if len(set(names)) > 1 or "/" in names[0] or not names[0].endswith(".npz"):
                raise ValueError("the samples of an npz release must have one npz file")
        else:
            self._check_own_files()
        if any((sample.mask is not None) != (self.data.task == "segmentation") for sample in self.samples):
            raise ValueError("masks go with segmentation, and every sample of it has one")

    def _check_own_files(self) -> None:
        """Files of one sample, or of the planes of one volume."""
        digests: dict[str, str] = {}
        taken: set[tuple[str, int | None]] = set()
        for sample in self.samples:
            for name, digest in sample.files().items():
                # Planes of one volume have one file, the channels of one case one mask.
                shared = digests.get(name) == digest and (sample.plane is not None or name == sample.mask)
                if (name in digests and not shared) or (name == sample.file and (name, sample.plane) in taken):
                    raise ValueError("two samples have the same file")
                digests[name] = digest
                taken.add((name, sample.plane))

    def _check_targets(self) -> None:
        kind = {"segmentation": str, "classification": int, "multilabel": tuple}[self.data.task]
        if not all(isinstance(sample.target, kind) for sample in self.samples):
            raise ValueError(f"a target is not one of {self.data.task}")
        if self.data.kind == "class-folder" and self.data.classes is None:
            raise ValueError("class folders need the names of the classes")
        if self.data.task == "classification" and self.data.classes is not None:
            highest = max(sample.target for sample in self.samples if isinstance(sample.target, int))
            if highest >= len(self.data.classes):
                raise ValueError(f"target {highest} is out of range: there are {len(self.data.classes)} classes")

    @staticmethod
    def read(release: Path) -> "Manifest":
        """The manifest of the release in the folder ``release``; every name in it is one of a place within.

        Raises UserError when there is none, it is not one, or a link is on the way to one of its files.
        """
        path = release / MANIFEST
        try:
            manifest = read_as(Manifest, path, "the manifest of a release", "fetch or make the release again", _BYTES)
        except FileNotFoundError:
            raise UserError(f"{release} has no {MANIFEST}: give a release made by 'medveil protect'") from None
        for name in manifest.listed():
            if (link := _link_on_the_way(release, name)) is not None:
                raise UserError(f"{link} is a link: a release holds its own files only; fetch or make it again")
        return manifest

    def write(self, folder: Path) -> None:
        """Write it into ``folder``, whose files are there, and read it back. Raises :class:`VerificationFailed`."""
        text = json.dumps(_ADAPTER.dump_python(self, mode="json", exclude_defaults=True), indent=1, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n")
        if Manifest.read(folder) != self:
            raise VerificationFailed("the manifest does not read back as it was written")

    @property
    def npz(self) -> str | None:
        """The name of the file that holds all samples, where the release is an npz."""
        return self.samples[0].file if self.npz_sha256 is not None else None

    def listed(self) -> Mapping[str, str]:
        """Every file of the release but the manifest, and its sha256."""
        if self.npz is not None and self.npz_sha256 is not None:
            return {self.npz: self.npz_sha256}
        return {name: digest for sample in self.samples for name, digest in sample.files().items()} | self.others

    def first_damage(self, release: Path) -> str | None:
        """The first file of the release that is not as listed here, or None."""
        for name, digest in sorted(self.listed().items()):
            if not (release / name).is_file() or sha256_of(release / name) != digest:
                return name
        return None

    def check_intact(self, release: Path) -> None:
        """Raise UserError when a file of the release is missing, is not as listed here, or is not listed."""
        damaged = self.first_damage(release)
        if damaged is not None:
            raise UserError(f"{release / damaged} is not as the manifest says: fetch or make the damaged release again")
        listed = self.listed()
        for path in sorted(release.rglob("*")):
            name = path.relative_to(release).as_posix()
            if path.is_symlink():
                raise UserError(f"{path} is a link: a release holds its own files only; remove it")
            if path.is_file() and not path.name.startswith(".") and name != MANIFEST and name not in listed:
                raise UserError(f"{path} is not listed in the manifest: remove it")


def check_outside_releases(out: Path, itself: bool = False) -> None:
    """Raise UserError when ``out`` lies in a release, or with ``itself`` is one: others get what is written there."""
    place = out.expanduser().resolve()
    for folder in [*([place] if itself else []), *place.parents]:
        if _is_release(folder):
            raise UserError(f"--out {out} lies in the release {folder}, which others get: choose a place beside it")


def _is_release(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file() and bool(Manifest.read(folder))
    except UserError:
        return False  # a file of that name which is no manifest of ours


_ADAPTER = TypeAdapter(Manifest)


def _link_on_the_way(release: Path, name: str) -> Path | None:
    """The first link between the folder ``release`` and its file ``name``, or None."""
    path = release
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            return path
    return None
