"""The private manifest of a release: what was done to its images. It stays with the run, where no thief has it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from medveil.errors import UserError
from medveil.launch.reading import STORED, read_as
from medveil.launch.release.manifest import MANIFEST, Digest, Manifest, Side, Text
from medveil.launch.results import Options
from medveil.launch.running.files import sha256_of, write_private
from medveil.launch.running.places import run_beside

PRIVATE = "private.json"

_BYTES = 512 << 20

Count = Annotated[int, Field(ge=0, le=1 << 40)]
Level = Annotated[int | float, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]


Place = Annotated[str, Field(min_length=1, max_length=4096)]


@dataclass(frozen=True)
class Original:
    """A file that was protected, and its sha256. ``file``: its name within the data's folder."""

    __pydantic_config__ = STORED

    file: Place
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Treated:
    """What was done to one released image.

    ``max_change``: in grey levels; ``changed``: share of its values. ``source_size``: width and height of the original
    file, ``source_mode`` Pillow's word for it. ``original`` and ``masks``: the files that it was made from, unless they
    are arrays of an npz or were generated. ``reason``: why nothing was changed.
    """

    __pydantic_config__ = STORED

    id: Text
    protected: bool
    max_change: Level
    changed: Share
    source_size: tuple[Side, Side]
    source_mode: Text
    original: Original | None = None
    masks: tuple[Original, ...] = ()
    reason: Text | None = None


@dataclass(frozen=True)
class Bound:
    """The budget that holds for every image; None: none is promised (see :class:`medveil.protector.Budget`)."""

    __pydantic_config__ = STORED

    levels: Annotated[int, Field(ge=0, le=255)] | None
    changed: Share | None


@dataclass(frozen=True)
class Scope:
    """What of the data was to be protected: ``classes`` by name, ``share`` in percent; None: no such choice."""

    __pydantic_config__ = STORED

    classes: tuple[Text, ...] | None
    share: Annotated[int | float, Field(ge=0, le=100)] | None


@dataclass(frozen=True)
class Totals:
    """Counts of images, and means over the protected ones (``psnr`` in dB; None: nothing that shows changed)."""

    __pydantic_config__ = STORED

    samples: Count
    protected: Count
    unprotected: Count
    dropped: Count
    held_out: Count
    psnr: float | None
    ssim: float | None


@dataclass(frozen=True)
class Contribution:
    """What one of several merged releases was made with, and how many of its images are protected."""

    __pydantic_config__ = STORED

    method: Text
    mode: Text | None
    budget: Bound
    part: Scope | None
    protected: Count


@dataclass(frozen=True)
class Dropped:
    """A sample that is not in the release, and why."""

    __pydantic_config__ = STORED

    id: Text
    reason: Text


@dataclass(frozen=True)
class Named:
    """The data set that a release was made from: ``name``, for tables; ``place``, its folder or npz, if it has one."""

    __pydantic_config__ = STORED

    name: Text
    place: Place | None = None


@dataclass(frozen=True, kw_only=True)
class PrivateManifest:
    """What was done to the images of a release. Still nothing to recover an original from: no seed.

    ``public``: sha256 of the release's own manifest. ``method``: "several" for a merged release of several;
    ``merged``: then what each was. ``settings``: those of the method that were given, over its preset's.
    ``held_out``: ids of the original that were neither fitted nor released.
    ``survives``: what is left of the noise, see :meth:`medveil.launch.release.survival.Survival.shares`.
    ``visible``: how strong it is, see :meth:`medveil.launch.release.visibility.Visibility.shown`.
    """

    __pydantic_config__ = STORED

    format: Literal[1, 2]
    public: Digest | None = None
    data: Named
    method: Text
    mode: Text | None
    budget: Bound
    settings: dict[Text, Text | bool | int | float | None] = field(default_factory=dict)
    part: Scope | None = None
    merged: tuple[Contribution, ...] | None = None
    totals: Totals
    versions: dict[Text, Text]
    survives: dict[Text, dict[Text, float]] = field(default_factory=dict)
    visible: dict[Text, dict[Text, float]] = field(default_factory=dict)
    samples: Annotated[tuple[Treated, ...], Field(min_length=1)]
    dropped: tuple[Dropped, ...]
    held_out: tuple[Text, ...]

    def __post_init__(self) -> None:
        """Whether the parts fit together. Raises ValueError."""
        protected = sum(sample.protected for sample in self.samples)
        counted = (len(self.samples), protected, len(self.samples) - protected, len(self.dropped), len(self.held_out))
        totals = self.totals
        if (totals.samples, totals.protected, totals.unprotected, totals.dropped, totals.held_out) != counted:
            raise ValueError("totals are not those of the samples")

    @staticmethod
    def read(folder: Path) -> "PrivateManifest | None":
        """The private manifest in the run directory ``folder``; None where there is none. Raises UserError."""
        try:
            return _read(folder / PRIVATE)
        except FileNotFoundError:
            return None

    @staticmethod
    def find(release: Path, run: Path | None = None) -> "PrivateManifest | None":
        """That of ``release``: in the private run folder ``run``, else in the one beside the release; None without one.

        Releases of format 1 have it in their own manifest. Raises UserError when a ``run`` that was named has none.
        """
        manifest = Manifest.read(release)
        if manifest.format == 1:
            return _read(release / MANIFEST)
        digest = sha256_of(release / MANIFEST)
        place = run_beside(release) if run is None else run
        for folder in _runs(place):
            found = PrivateManifest.read(folder)
            if found is not None and found.public == digest:
                return found
        if run is not None:
            raise UserError(f"--run {run} has no private manifest of {release}: name the run that it was made in")
        return None

    @staticmethod
    def needed(release: Path, run: Path | None, what: str) -> "PrivateManifest":
        """As :meth:`find`; raises UserError without one, saying ``what`` it is needed for."""
        found = PrivateManifest.find(release, run)
        if found is None:
            raise UserError(f"{release} does not tell {what}: give --run DIR, the private run that it was made in")
        return found

    def write(self, folder: Path) -> None:
        """Keep it in the run directory ``folder``."""
        values = _ADAPTER.dump_python(self, mode="json", exclude_defaults=True)
        write_private(folder / PRIVATE, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())

    @property
    def options(self) -> Options:
        """Mode, bound, what is protected and what else was given: mode=strict eps=8/255 share=20 k=5."""
        classes, share = (None, None) if self.part is None else (self.part.classes, self.part.share)
        options = {
            "mode": self.mode,
            "eps": f"{self.budget.levels}/255" if self.budget.levels else None,
            "classes": ",".join(classes) if classes else None,
            "share": None if share is None else f"{share:g}",
        }
        return Options({name: value for name, value in {**self.settings, **options}.items() if value is not None})

    @property
    def protected(self) -> frozenset[str]:
        """The ids of the protected samples."""
        return frozenset(sample.id for sample in self.samples if sample.protected)


def _runs(place: Path) -> Iterator[Path]:
    yield place
    if place.is_dir():
        yield from sorted(path.parent for path in place.glob(f"*/{PRIVATE}"))


def _read(path: Path) -> PrivateManifest:
    what = "the manifest of a release" if path.name == MANIFEST else "the private manifest of a release"
    return read_as(PrivateManifest, path, what, "fetch or make the release again", _BYTES)


_ADAPTER = TypeAdapter(PrivateManifest)
