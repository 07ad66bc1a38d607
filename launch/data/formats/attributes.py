"""The attributes of DICOM files: which a release keeps, and which are made anew; no other is ever decoded."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

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

RENEWED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
RENEWED_WITHIN = ("ReferencedSOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationUID")

USED = KEPT.union(RENEWED, RENEWED_WITHIN)
"""Of these the values must be what the standard says; whatever is wrong with others goes with them."""


def decode(dataset: "Dataset") -> None:
    """Decode all of :data:`USED`, in sequences too: pydicom puts it off, and raises where they are first asked for.

    Raises what it does; and ValueError for a word in place of a number, which it would give back as it is.
    """
    from pydicom.datadict import keyword_for_tag

    for tag in list(dataset.keys()):
        if keyword_for_tag(tag) in USED:
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    decode(item)
            elif element.VR in ("DS", "IS") and element.value not in (None, ""):
                for one in element.value if element.VM > 1 else [element.value]:
                    float(one)
