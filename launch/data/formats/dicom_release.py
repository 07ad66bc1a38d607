"""DICOM images as a release holds them: new values and identifiers, of the attributes those that are listed."""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medveil.launch.data.formats.attributes import KEPT, RENEWED, RENEWED_WITHIN, USED
from medveil.launch.data.formats.dicom import quiet, read_dataset
from medveil.launch.data.formats.windows import Values

if TYPE_CHECKING:
    from pydicom import Dataset

DERIVATION = "Pixel values were modified; not for diagnosis"

_EMPTY = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "AccessionNumber",
    "StudyID",
    "Manufacturer",
)
"""Attributes that must be there and may be empty."""

_OF_IMAGES_NOT = ("DerivationImageSequence", "SourceImageSequence", "ReferencedSeriesSequence")


@dataclass(frozen=True)
class Identity:
    """How old identifiers become new ones: the same in all files of a run, and by nobody else to be computed."""

    secret: bytes = field(repr=False)

    def uid(self, old: str) -> str:
        """A unique identifier of the form 2.25.N, N of 128 bits."""
        return f"2.25.{int.from_bytes(self._digest(old)[:16], 'big') | 1 << 127}"

    def pseudonym(self, old: str) -> str:
        """Of a patient: 16 hex digits."""
        return self._digest(f"patient {old}").hex()[:16]

    def _digest(self, text: str) -> bytes:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).digest()


def write(path: Path, original: Path, values: Values, identity: Identity) -> None:
    """Save ``values`` [P, H, W] or [P, H, W, 3] as ``path``, Explicit VR Little Endian, else as ``original`` was."""
    dataset = released(read_dataset(original, pixels=False), identity)
    with quiet(path):
        dataset.SamplesPerPixel = 3 if values.ndim == 4 else 1
        if values.ndim == 4:
            dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        set_pixels(dataset, values)
        dataset.save_as(path, enforce_file_format=True)


def set_pixels(dataset: "Dataset", values: Values) -> None:
    """``values`` as native pixels of the dataset, which describes them."""
    content = values.astype(values.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"


def released(original: "Dataset", identity: Identity) -> "Dataset":
    """The attributes of a released image or segmentation, without pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

    out = _kept(original, identity, is_image=original.get("Modality") != "SEG")
    for name in RENEWED:
        if original.get(name):
            setattr(out, name, identity.uid(str(original[name].value)))
    for name in _EMPTY:
        setattr(out, name, "")
    out.PatientID = out.PatientName = identity.pseudonym(str(original.get("PatientID", "")))
    if original.get("Modality") != "SEG":
        _say_derived(out)
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code("109103", "Modifying Equipment")]
    equipment.Manufacturer = "Medveil"
    out.ContributingEquipmentSequence = [equipment]
    out.file_meta = FileMetaDataset()
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return out


def _kept(original: "Dataset", identity: Identity, *, is_image: bool) -> "Dataset":
    """The listed attributes, in sequences too, with what they refer to renewed."""
    from pydicom.datadict import keyword_for_tag
    from pydicom.dataset import Dataset

    out = Dataset()
    for tag in sorted(original.keys()):
        # What is left out is not even decoded: whatever is wrong with it does not matter.
        name = keyword_for_tag(tag)
        if name not in USED or (is_image and name in _OF_IMAGES_NOT):
            continue
        element = original[tag]
        if name in RENEWED_WITHIN:
            setattr(out, name, identity.uid(str(element.value)))
        elif name in KEPT and element.VR == "SQ":
            setattr(out, name, [_kept(item, identity, is_image=is_image) for item in element.value])
        elif name in KEPT:
            out.add(element)
    return out


def _say_derived(out: "Dataset") -> None:
    out.ImageType = _derived(out.get("ImageType"))
    for groups in (out.get("SharedFunctionalGroupsSequence"), out.get("PerFrameFunctionalGroupsSequence")):
        for frame in groups or ():
            for name in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence"):
                for item in frame.get(name) or ():
                    item.FrameType = _derived(item.get("FrameType"))
    out.DerivationDescription = DERIVATION
    out.DerivationCodeSequence = [_code("113042", "Pixel by pixel addition")]


def _derived(kinds: Any) -> list[str]:
    rest = [] if not kinds or isinstance(kinds, str) else [str(kind) for kind in kinds][1:]
    return ["DERIVED", *(rest or ["PRIMARY"])]


def _code(value: str, meaning: str) -> "Dataset":
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
