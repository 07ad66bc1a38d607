"""A data set as the user names it, opened: the samples to protect, a test part, and where each sample came from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medveil import keyed
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.launch.data.labels import PerLabel
from medveil.launch.data.native import NativeFile
from medveil.launch.data.origins import Origin

Kind = Literal["segmentation-folder", "class-folder", "npz", "phantom"]

MANIFEST = "manifest.json"
"""The file that makes a folder a release; read by :class:`medveil.launch.release.manifest.Manifest`."""

MAX_CLASSES = 10_000
"""More classes, or labels of an image, than any set has: beyond it a number is a mistake, and would fill the memory."""


@dataclass(frozen=True)
class Source:
    """An opened data set.

    ``spec``: what the user typed. ``name``: short, for tables. ``data``: the samples to protect. ``test``: an own test
    part, or None. ``notes``: what was done to the images, one line each. ``fingerprint``: sha256 over ids and contents.
    ``npz_path`` or ``folder``: where it was read from. ``files``: of a folder, the files of ``data`` in its order.
    ``left_out``: samples whose files cannot be used, and why. ``others``: what else a release of some of them holds,
    text by file name. ``labels``: the values of its label maps that are foreground, ascending; ``label_maps``: ``data``
    with each pixel's place among these as targets. ``planes``: slices of each volume of an npz.
    """

    spec: str
    name: str
    kind: Kind
    data: Dataset
    test: Dataset | None
    class_names: list[str] | None
    notes: list[str]
    fingerprint: str
    npz_path: Path | None = None
    folder: Path | None = None
    origins: Sequence[Origin] = field(default=(), repr=False)
    files: Sequence[NativeFile] = field(default=(), repr=False)
    left_out: tuple[tuple[str, str], ...] = ()
    others: Callable[[Sequence[NativeFile]], Mapping[str, str]] = lambda _: {}
    labels: tuple[int, ...] = ()
    label_maps: Dataset | None = None
    planes: int = 1

    @property
    def place(self) -> Path | None:
        """The npz or the folder that it was read from; None for generated data."""
        return self.npz_path or self.folder

    @property
    def side(self) -> int | None:
        """The side of the images of ``data`` in pixels, where they are squares."""
        height, width = self.data.size
        return height if height == width else None

    @property
    def volumes(self) -> dict[str, str]:
        """The volume of each slice, by its id; no other sample has one."""
        if self.planes > 1:
            ids = [*self.data.ids, *(() if self.test is None else self.test.ids)]
            return {sample: sample.rpartition("/")[0] for sample in ids}
        volumes = [file for file in self.files if file.planes > 1]
        return {self.data.ids[index]: file.name for file in volumes for index in file.indices}

    def grouped(self, groups: Mapping[str, str] | None = None) -> Mapping[str, str] | None:
        """What a hold-out keeps together: the slices of a volume and the images that share a mask, as channels of a
        case do; with ``groups`` (of each id) the cases whose first slices are of one. None: nothing.
        """
        first: dict[str, NativeFile] = {}  # of each case
        owners = [file if file.mask is None else first.setdefault(file.mask, file) for file in self.files]
        if all(file.planes == 1 for file in self.files) and len(set(owners)) == len(owners):
            return groups
        ids = self.data.ids
        of_file = {
            file: owner.name if groups is None else groups[ids[owner.first]]
            for file, owner in zip(self.files, owners, strict=True)
        }
        return {ids[index]: of_file[file] for file in self.files for index in file.indices}

    @property
    def deepest(self) -> int:
        """The most slices that a volume has; 1 without any."""
        return max([self.planes, *(file.planes for file in self.files)])

    def per_label(self, labels: Sequence[int]) -> Dataset:
        """The samples with the regions of ``labels`` as targets, uint8 {0, 1} [B, L, H, W], empty where it has none.

        Raises UserError where it has masks but no label maps.
        """
        if self.label_maps is None:
            raise UserError(f"{self.spec} has no label maps of {', '.join(map(str, labels))}: give other images")
        numbers = tuple(self.labels.index(one) + 1 if one in self.labels else -1 for one in labels)
        return PerLabel(self.label_maps, numbers)

    def origin(self, index: int) -> Origin:
        """Where sample ``index`` of ``data`` came from."""
        if self.origins:
            return self.origins[index]
        height, width = self.data.size
        class_name = None
        if self.class_names and self.data.task == "classification":
            class_name = self.class_names[int(self.data.read([index]).targets[0])]
        return Origin(self.data.ids[index], (width, height), "L" if self.data.channels == 1 else "RGB", class_name)


def split_holdout(
    data: Dataset, fraction: float, seed: int, groups: Mapping[str, str] | None = None
) -> tuple[list[int], list[int]]:
    """Indices to train on and to test on, both ascending; what goes where depends on ``seed`` and the ids alone.

    ``groups``: of each id; those of one group stay together, and the test part is the smallest number of whole groups,
    as they are drawn, that reaches the share. Raises :class:`UserError` if either part would be empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"holdout {fraction:g} is not a share: give a number between 0 and 1, such as 0.2")
    count = len(data)
    wanted = round(count * fraction)
    if not 0 < wanted < count:
        raise UserError(
            f"{count} images are too few to hold out {fraction:g} of them: give more images or another share"
        )
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(data.ids):
        members.setdefault(sample if groups is None else groups[sample], []).append(index)
    names = list(members)
    draws = keyed.words(seed, "holdout", 0, keyed.keys_of(names), ())
    test: list[int] = []
    for i in sorted(range(len(names)), key=lambda i: (int(draws[i]), names[i])):
        if len(test) < wanted:
            test += members[names[i]]
    if len(test) == count:
        raise UserError(
            f"{count} images in {len(names)} groups: holding out {fraction:g} would leave none to protect: "
            "give smaller groups or another share"
        )
    return sorted(set(range(count)) - set(test)), sorted(test)
