"""Under which windows the files of a set are looked at."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medveil.errors import UserError
from medveil.launch.data.config import Reading
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.dicom import read_dataset
from medveil.launch.data.formats.windows import Window, percentile_window
from medveil.launch.data.medical.files import MedicalFile


@dataclass(frozen=True)
class Looked:
    """A file that can be used, and what is common to its voxels: ``shape`` (P, H, W), the ``windows`` that it declares,
    the type that they are stored as, ``spacing`` in mm. ``labels``: the values of its label map but 0.
    """

    file: MedicalFile
    shape: tuple[int, ...]
    windows: tuple[Window, ...]
    dtype: str
    spacing: tuple[float, ...]
    labels: frozenset[int]

    @property
    def word(self) -> str:
        """What it is, for people."""
        known = {"dicom": "DICOM file", "nifti": "NIfTI file", "sixteen": "picture", "picture": "picture"}
        return "DICOM series" if self.file.slices else known[self.file.kind]

    @property
    def apart(self) -> str:
        """How far its pixels and slices are apart, as far as it tells."""
        return f", {'x'.join(f'{one:g}' for one in self.spacing)} mm" if self.spacing else ""


def windows_of(
    looked: Sequence[Looked], reading: Reading, declared: tuple[Window, ...] | None
) -> list[tuple[Window, ...]]:
    """Of each file: as declared, else its own, where all of its series have the same, else the percentiles of what
    belongs together: a volume, a series, or all pictures of a set. Never of a slice.
    """
    if declared is not None:
        return [declared] * len(looked)
    groups: dict[str, list[Looked]] = defaultdict(list)
    for one in looked:
        groups[_group(one.file)].append(one)
    by_group = {}
    for name, members in groups.items():
        own = {one.windows for one in members}
        by_group[name] = (own.pop() if len(own) == 1 else ()) or (_percentiles(members, reading),)
    return [by_group[_group(one.file)] for one in looked]


def _percentiles(members: Sequence[Looked], reading: Reading) -> Window:
    files = [one.file for one in members]
    read = [formats.read(file.image, file.kind, file.slices, identified=reading.identified) for file in files]
    if len({one.scale for one in read}) > 1:
        raise UserError(f"{files[0].image} and others of its series have different rescale slopes: split them")
    # Where every value is the same nothing says what to look through; one stored unit is to be one grey level then.
    scale = read[0].scale
    only, half = float(scale.values(read[0].values.ravel()[:1])[0]), 127.5 * abs(scale.slope)
    found = percentile_window([one.image_values() for one in read], scale)
    return found or Window("one value", only - half, only + half)


def _group(file: MedicalFile) -> str:
    """The name of what shares its windows with the file."""
    if file.kind == "dicom":
        return str(read_dataset(file.parts[0], pixels=False).get("SeriesInstanceUID", file.id))
    return file.id if file.kind == "nifti" else "pictures"
