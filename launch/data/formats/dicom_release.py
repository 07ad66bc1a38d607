"""DICOM images as a release holds them: new values and identifiers, of the attributes those that are listed here."""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medveil.errors import UserError
from medveil.launch.data.formats.dicom import quiet, read_dataset
from medveil.launch.data.formats.windows import Values

if TYPE_CHECKING:
    from pydicom import Dataset

DERIVATION = "Pixel values were modified; not for diagnosis"

_NAMES = """
    SpecificCharacterSet ImageType SOPClassUID Modality BodyPartExamined Laterality ImageLaterality ViewPosition
    PatientPosition PatientOrientation SeriesNumber InstanceNumber AcquisitionNumber ImagesInAcquisition
    ImagePositionPatient ImageOrientationPatient PositionReferenceIndicator SliceLocation SliceThickness
    SpacingBetweenSlices PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing PixelAspectRatio
    PixelSpacingCalibrationType TemporalPositionIdentifier NumberOfTemporalPositions SamplesPerPixel
    PhotometricInterpretation Rows Columns NumberOfFrames FrameIncrementPointer FrameTime FrameTimeVector BitsAllocated
    BitsStored HighBit PixelRepresentation PlanarConfiguration PixelPaddingValue PixelPaddingRangeLimit RescaleSlope
    RescaleIntercept RescaleType WindowCenter WindowWidth WindowCenterWidthExplanation VOILUTFunction VOILUTSequence
    LUTDescriptor LUTExplanation LUTData PresentationLUTShape PixelIntensityRelationship PixelIntensityRelationshipSign
    LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod KVP ScanningSequence SequenceVariant
    ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoNumbers EchoTrainLength InversionTime FlipAngle
    MagneticFieldStrength ConvolutionKernel ContentQualification PixelPresentation VolumetricProperties
    VolumeBasedCalculationTechnique ComplexImageComponent AcquisitionContrast BurnedInAnnotation PatientIdentityRemoved
    DeidentificationMethod DeidentificationMethodCodeSequence LongitudinalTemporalInformationModified
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence PlanePositionSequence
    PlaneOrientationSequence PixelValueTransformationSequence FrameVOILUTSequence FrameContentSequence
    FrameAnatomySequence FrameLaterality AnatomicRegionSequence StackID InStackPositionNumber DimensionIndexValues
    TemporalPositionIndex FrameType MRImageFrameTypeSequence CTImageFrameTypeSequence FrameAcquisitionNumber
    DimensionOrganizationSequence DimensionOrganizationUID DimensionOrganizationType DimensionIndexSequence
    DimensionIndexPointer FunctionalGroupPointer DimensionDescriptionLabel CodeValue CodingSchemeDesignator CodeMeaning
    SegmentSequence SegmentNumber SegmentLabel SegmentAlgorithmType SegmentedPropertyCategoryCodeSequence
    SegmentedPropertyTypeCodeSequence SegmentationType SegmentIdentificationSequence ReferencedSegmentNumber
    ReferencedSeriesSequence ReferencedInstanceSequence ReferencedSOPClassUID ReferencedSOPInstanceUID
    DerivationImageSequence SourceImageSequence PurposeOfReferenceCodeSequence ReferencedFrameNumber ContentLabel
    SpatialLocationsPreserved SegmentsOverlap
"""
KEPT = frozenset(_NAMES.split())
"""Attributes that a release keeps, also within sequences; of an image's own derivation nothing. All others go: patient,
people, places, dates, devices, thumbnails (an unprotected one would give the image away), overlays, signatures, extreme
pixel values and private groups.
"""

_RENEWED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_RENEWED_WITHIN = ("ReferencedSOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationUID")
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
    """The attributes of a released image or segmentation, without pixels.

    Raises :class:`UserError` where it lacks an identifier.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

    out = _kept(original, identity, is_image=original.get("Modality") != "SEG")
    for name in _RENEWED:
        if original.get(name):
            setattr(out, name, identity.uid(original[name].value))
    for name in ("SeriesInstanceUID", "StudyInstanceUID"):
        if not original.get(name):
            raise UserError(f"{original.filename} has no {name}: it is no DICOM image, or is damaged")
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
    from pydicom.dataset import Dataset

    out = Dataset()
    for element in original:
        name = element.keyword
        if element.tag.is_private or (is_image and name in _OF_IMAGES_NOT):
            continue
        if name in _RENEWED_WITHIN:
            setattr(out, name, identity.uid(element.value))
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
