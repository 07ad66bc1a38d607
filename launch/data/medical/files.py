"""Which files of a folder are the images of a set, and which mask or class each has."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data.bad import BadFiles
from medveil.launch.data.formats import files as formats
from medveil.launch.data.formats.files import Kind
from medveil.launch.data.listing import add_once, class_folders, left_out, listing, refuse_loose

_INDEX = "DICOMDIR"
"""The file that lists a DICOM medium's others, whatever its suffix and case."""


@dataclass(frozen=True)
class MedicalFile:
    """One image with its mask or class. ``image``: a file, or the folder of a DICOM series, whose files ``slices`` are.

    ``name`` and ``mask_name``: in a release, without suffix.
    """

    id: str
    image: Path
    kind: Kind
    name: str
    mask: Path | None = None
    mask_name: str | None = None
    class_name: str | None = None
    slices: tuple[Path, ...] = ()

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files of the image."""
        return self.slices or (self.image,)

    @property
    def suffix(self) -> str:
        """Of the image in a release; a series is a folder."""
        return "" if self.slices else formats.suffix_of(self.image)


def paired(images: Path, masks: Path, notes: list[str], bad: BadFiles) -> list[MedicalFile]:
    """``images/X`` with ``masks/X``, whatever the suffixes. What has no mask, or no image, is added to ``bad``."""
    by_stem = _by_stem(masks, notes)
    found = []
    for path, kind, slices in _images(images, notes):
        stem = _stem(path, slices)
        if kind != "picture" and stem not in by_stem:
            suffix = "" if slices else formats.suffix_of(path)
            wanted = masks / f"{stem}{suffix or '.dcm'}"
            bad.add(stem, UserError(f"{path} has no mask: add {wanted} or remove the image"))
            continue
        mask = by_stem.get(stem)
        found.append(MedicalFile(stem, path, kind, f"images/{stem}", mask, f"masks/{stem}", slices=slices))
    _add_lonely(by_stem, {file.id for file in found}.union(sample for sample, _ in bad.found), bad)
    return found


def of_nnunet(root: Path, notes: list[str], bad: BadFiles) -> list[MedicalFile]:
    """``imagesTr/CASE_0000.EXT`` with ``labelsTr/CASE.EXT``: a file for each channel."""
    labels = _by_stem(root / "labelsTr", notes)
    found = []
    for path, kind, _ in _images(root / "imagesTr", notes):
        stem = formats.stem_of(path)
        case, _, channel = stem.rpartition("_")
        if not (case and len(channel) == 4 and channel.isdecimal()):
            bad.add(
                stem, UserError(f"{path} is not called CASE_0000 as nnU-Net names the channels of a case: rename it")
            )
        elif path.suffix.lower() in formats.JPEG:
            bad.add(stem, UserError(f"{path} is a JPEG, which nnU-Net does not read: save a PNG"))
        elif case not in labels:
            wanted = f"labelsTr/{case}{formats.suffix_of(path)}"
            bad.add(stem, UserError(f"{path} has no label map: add {wanted} or remove the image"))
        else:
            found.append(MedicalFile(stem, path, kind, f"imagesTr/{stem}", labels[case], f"labelsTr/{case}"))
    ids = [file.id for file in found] + [sample for sample, _ in bad.found]
    _add_lonely(labels, {sample.rpartition("_")[0] for sample in ids}, bad)
    return found


def in_classes(folder: Path, notes: list[str]) -> list[MedicalFile]:
    """``CLASS/X``: a folder for each class."""
    found = []
    classes = class_folders(folder)
    loose = [path for path in listing(folder) if not path.is_dir() and formats.kind_of(path)] if classes else []
    refuse_loose(folder, classes, loose)
    for one in classes:
        for path, kind, slices in _images(one, notes):
            stem = f"{one.name}/{_stem(path, slices)}"
            found.append(MedicalFile(stem, path, kind, f"images/{stem}", class_name=one.name, slices=slices))
    return found


def in_table(folder: Path, classes: Mapping[str, str], notes: list[str], bad: BadFiles) -> list[MedicalFile]:
    """The images of ``folder``, with the classes that a table says of their names."""
    found = []
    for path, kind, slices in _images(folder, notes):
        stem = _stem(path, slices)
        if stem not in classes:
            bad.add(stem, UserError(f"{path} has no class in the table of --labels-from: add {stem}"))
            continue
        name = f"images/{classes[stem]}/{stem}"
        found.append(MedicalFile(stem, path, kind, name, class_name=classes[stem], slices=slices))
    return found


def _by_stem(masks: Path, notes: list[str]) -> dict[str, Path]:
    """The mask of each image. Raises UserError for two of one: nobody but their owner knows which is meant."""
    found: dict[str, Path] = {}
    for path, _, _ in _images(masks, notes):
        add_once(found, formats.stem_of(path), path)
    return found


def _add_lonely(masks: Mapping[str, Path], images: Set[str], bad: BadFiles) -> None:
    """Add the masks of none of ``images``, which would be left out without a word."""
    for stem, path in masks.items():
        if stem not in images:
            bad.add(stem, UserError(f"{path} has no image called {stem!r}: add the image or remove the mask"))


def _images(folder: Path, notes: list[str]) -> Iterator[tuple[Path, Kind, tuple[Path, ...]]]:
    """The image files of ``folder``, sorted, and its folders of DICOM files with these."""
    others = []
    for path in listing(folder) if folder.is_dir() else ():
        if path.is_dir():
            files = (one for one in listing(path) if one.is_file() and one.stem.upper() != _INDEX)
            slices = tuple(one for one in files if formats.kind_of(one) == "dicom")
            if not slices:
                raise UserError(f"{path} is a folder: images must lie directly in {folder}")
            yield path, "dicom", slices
        elif path.stem.upper() != _INDEX:
            if (kind := formats.kind_of(path)) is not None:
                yield path, kind, ()
            else:
                others.append(path.name)
    notes += left_out(others, folder, "DICOM, NIfTI, PNG or TIFF")


def _stem(path: Path, slices: tuple[Path, ...]) -> str:
    return path.name if slices else formats.stem_of(path)
