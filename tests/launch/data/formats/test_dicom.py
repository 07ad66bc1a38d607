"""Real DICOM files: the bound on what is stored, what a release keeps, renews and removes, and what is refused."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medveil.errors import UserError
from medveil.launch.data.formats import dicom, dicom_release
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import TOLERANCE, change_in_levels, percentile_window
from tests.launch.data.formats.real import dicom_file

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian  # noqa: E402

IDENTITY = dicom_release.Identity(b"a secret of the run")
LEVELS = 4

FILES = [
    "693_J2KI.dcm",  # CT, 14 of 16 bits, signed, padding, JPEG 2000
    "CT_small.dcm",
    "MR2_UNCR.dcm",  # 1024 MR, slope 3.774114
    "RG3_UNCR.dcm",  # MONOCHROME1, 10 of 16 bits
    "MR_small_bigendian.dcm",
    "emri_small.dcm",  # ten frames, no window
    "eCT_Supplemental.dcm",  # per-frame rescale, enhanced
    "US1_UNCR.dcm",  # RGB
    "SC_rgb_16bit_2frame.dcm",
    "SC_rgb_small_odd.dcm",  # 27 bytes of pixels
    "MR_small_jpeg_ls_lossless.dcm",
]


def noisy(stored: Stored) -> tuple[np.ndarray, tuple[dicom.Window, ...]]:
    """Random signs of the whole bound, as a protector would give them."""
    window = percentile_window([stored.image_values()], stored.scale)
    windows = stored.windows or (window,)
    signs = np.random.default_rng(0).choice([-LEVELS, LEVELS], stored.values.shape).astype(np.float32)
    return np.stack([stored.changed(i, signs[i], windows, LEVELS) for i in range(stored.planes)]), windows


@pytest.mark.parametrize("name", FILES)
def test_a_release_reads_back_within_the_bound_in_every_library(name: str, tmp_path: Path) -> None:
    path = dicom_file(name)
    try:
        stored = dicom.read(path, identified=True)
    except UserError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    values, windows = noisy(stored)
    dicom_release.write(tmp_path / "out.dcm", path, values, IDENTITY)
    saved = dicom.read(tmp_path / "out.dcm", identified=True)
    assert saved.values.dtype == stored.values.dtype
    assert np.array_equal(saved.values, values)
    assert (saved.scale, saved.limits, saved.spacing) == (stored.scale, stored.limits, stored.spacing)
    change = change_in_levels(stored.values, saved.values, stored.scale, windows)
    assert 0.5 < change.max() <= LEVELS + TOLERANCE
    if stored.padding is not None:
        assert np.array_equal(saved.padding, stored.padding)
        assert not change[stored.padding].any()
    sitk = pytest.importorskip("SimpleITK")
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.dcm"))).astype(np.float64).reshape(values.shape)
    expected = stored.scale.values(values)
    if stored.inverted:  # SimpleITK turns them
        read = read.max() + expected.min() - read
    assert np.allclose(read, expected, rtol=1e-5)


def test_identifiers_are_renewed_alike_and_attributes_kept_or_removed(tmp_path: Path) -> None:
    path = dicom_file("MR-SIEMENS-DICOM-WithOverlays.dcm")
    old = pydicom.dcmread(path)
    old.IconImageSequence = [Dataset()]
    old.add_new("SmallestImagePixelValue", "US", 0)
    old.LossyImageCompression = "01"
    old.DigitalSignaturesSequence, old.SourceImageSequence = [Dataset()], [Dataset()]
    old.PatientName, old.InstitutionName, old.OperatorsName = "Doe^Jane", "St. Elsewhere", "Roe"
    old.save_as(tmp_path / "in.dcm")
    values = dicom.read(tmp_path / "in.dcm", identified=True).values
    dicom_release.write(tmp_path / "out.dcm", tmp_path / "in.dcm", values, IDENTITY)
    new = pydicom.dcmread(tmp_path / "out.dcm")
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert new[name].value == IDENTITY.uid(old[name].value) != old[name].value
        assert new[name].value != dicom_release.Identity(b"another").uid(old[name].value)
        assert len(new[name].value) <= 64
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    assert new.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    kept = "ImageOrientationPatient ImagePositionPatient PixelSpacing BitsStored WindowCenter WindowWidth Modality"
    for name in kept.split():
        assert new[name].value == old[name].value, name
    assert new.LossyImageCompression == "01"
    assert list(new.ImageType) == ["DERIVED", *list(old.ImageType)[1:]]
    assert "not for diagnosis" in new.DerivationDescription
    assert new.DerivationCodeSequence[0].CodeValue == "113042"
    assert new.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
    for name in ("IconImageSequence", "SmallestImagePixelValue", "DigitalSignaturesSequence", "SourceImageSequence"):
        assert name in old
        assert name not in new
    assert not [element for element in new if element.tag.is_private or element.tag.group in range(0x6000, 0x6100)]
    content = (tmp_path / "out.dcm").read_bytes()
    for text in (b"Doe", b"Elsewhere", b"Roe", str(old.StudyDate).encode(), old.SOPInstanceUID.encode()):
        assert text not in content
    assert new.PatientID == IDENTITY.pseudonym(old.PatientID)


def test_frames_of_an_enhanced_image_keep_their_geometry_and_lose_their_references(tmp_path: Path) -> None:
    path = dicom_file("eCT_Supplemental.dcm")
    dicom_release.write(tmp_path / "out.dcm", path, dicom.read(path, identified=True).values, IDENTITY)
    old, new = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "out.dcm")
    for before, after in zip(old.PerFrameFunctionalGroupsSequence, new.PerFrameFunctionalGroupsSequence, strict=True):
        assert after.PlanePositionSequence == before.PlanePositionSequence
        assert "FrameReferenceDateTime" not in after.FrameContentSequence[0]
    assert new.DimensionOrganizationSequence[0].DimensionOrganizationUID != (
        old.DimensionOrganizationSequence[0].DimensionOrganizationUID
    )


def test_what_a_release_leaves_out_need_not_be_sound(tmp_path: Path) -> None:
    old = pydicom.dcmread(dicom_file("CT_small.dcm"))
    old.PatientWeight = "70.5"
    old.save_as(tmp_path / "in.dcm")
    content = (tmp_path / "in.dcm").read_bytes()
    assert content.count(b"70.5") == 1
    (tmp_path / "in.dcm").write_bytes(content.replace(b"70.5", b"70kg"))
    stored = dicom.read(tmp_path / "in.dcm", identified=True)
    dicom_release.write(tmp_path / "out.dcm", tmp_path / "in.dcm", stored.values, IDENTITY)
    assert "PatientWeight" not in pydicom.dcmread(tmp_path / "out.dcm")


def changed(name: str, change: Callable[[Dataset], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        dataset = pydicom.dcmread(dicom_file(name))
        change(dataset)
        dataset.save_as(path)

    return make


def cut(name: str, share: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        content = dicom_file(name).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def renamed(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        content = dicom_file(name).read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))

    return make


def put(**values: object) -> Callable[[Dataset], object]:
    return lambda dataset: [setattr(dataset, name, value) for name, value in values.items()]


def drop(name: str) -> Callable[[Dataset], object]:
    return lambda dataset: delattr(dataset, name)


def per_frame_slopes(dataset: Dataset) -> None:
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1 + number, 0, "US"
        frame.PixelValueTransformationSequence = [item]


MR_J2K = "MR_small_jp2klossless.dcm"
CT, EMR, ECT = "CT_small.dcm", "emri_small.dcm", "eCT_Supplemental.dcm"

MALFORMED = {
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a DICOM file"),
    "text": (lambda path: path.write_text("hello" * 100), "cannot be read as a DICOM file"),
    "preamble alone": (lambda path: path.write_bytes(bytes(128) + b"DICM"), "no SOP class"),
    "cut in the meta header": (cut(CT, 0.005), "cannot be read|no SOP class"),
    "cut in the attributes": (cut(CT, 0.08), "holds no image|cannot be read"),
    "cut in the pixels": (cut(CT, 0.9), "number of bytes"),
    "a frame short": (changed(EMR, put(NumberOfFrames=11)), "number of bytes"),
    "a frame that is not described": (
        changed(ECT, lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop()),
        "has 2 frames and describes 1",
    ),
    "negative frames": (changed(EMR, put(NumberOfFrames=-1)), "values: at most"),
    "rows beyond the pixels": (changed(CT, put(Rows=4000)), "number of bytes"),
    "no rows": (changed(CT, drop("Rows")), "no Rows"),
    "zero rows": (changed(CT, put(Rows=0)), "0 values"),
    "no bits": (changed(CT, drop("BitsAllocated")), "no BitsAllocated"),
    "no pixels": (changed(CT, drop("PixelData")), "holds no image"),
    "no photometric interpretation": (changed(CT, drop("PhotometricInterpretation")), "interpretation none"),
    "palette": (changed(CT, put(PhotometricInterpretation="PALETTE COLOR")), "PALETTE COLOR"),
    "CMYK": (changed(CT, put(PhotometricInterpretation="CMYK")), "CMYK"),
    "burned in": (changed(CT, put(BurnedInAnnotation="YES")), "burned-in annotation"),
    "patient not removed": (changed(CT, put(PatientIdentityRemoved="NO")), "identity was removed"),
    "nothing said of the patient": (changed(CT, lambda dataset: None), "identity was removed"),
    "no intercept": (changed(CT, drop("RescaleIntercept")), "half a rescale, no intercept"),
    "no slope": (changed(CT, drop("RescaleSlope")), "half a rescale, no slope"),
    "slope zero": (changed(CT, put(RescaleSlope=0)), "slope of 0"),
    "slope no number": (changed(CT, put(RescaleSlope=float("nan"))), "slope of nan"),
    "slopes differ": (changed(ECT, per_frame_slopes), "3 different rescale"),
    "zero spacing": (changed(CT, put(PixelSpacing=[0, 0])), "pixel spacing of 0x0"),
    "half a spacing": (changed(CT, put(PixelSpacing=[1])), "spacing"),
    "32 bits": (changed(CT, put(BitsAllocated=32, BitsStored=32, HighBit=31)), "stores 32 of 32 bits"),
    "1 bit": (changed(CT, put(BitsAllocated=1, BitsStored=1, HighBit=0)), "stores 1 of 1 bits"),
    "high bit elsewhere": (changed(CT, put(HighBit=7)), "high bit at 7"),
    "a modality table": (changed(CT, put(ModalityLUTSequence=[Dataset()])), "modality lookup table"),
    "a segmentation": (changed(CT, put(Modality="SEG")), "modality SEG"),
    "a dose": (lambda path: path.write_bytes(dicom_file("rtdose.dcm").read_bytes()), "modality RTDOSE"),
    "a report": (lambda path: path.write_bytes(dicom_file("reportsi.dcm").read_bytes()), "holds no image"),
    "no instance": (changed(CT, drop("SOPInstanceUID")), "no SOP class or instance UID"),
    "named another transfer syntax": (renamed(MR_J2K, b"1.2.4.90", b"1.2.4.80"), "does not decode|another package"),
    "a transfer syntax of nobody": (
        changed(CT, lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.3.4")),
        "cannot be read|does not decode",
    ),
    "a damaged JPEG 2000": (
        lambda path: path.write_bytes(dicom_file("JPEG2000-embedded-sequence-delimiter.dcm").read_bytes()),
        "does not decode|read with another package",
    ),
    "five planes of colour": (changed(CT, put(SamplesPerPixel=5)), "MONOCHROME2 of 5 samples a pixel"),
    "colour of one plane": (changed(CT, put(PhotometricInterpretation="RGB")), "RGB of 1 samples a pixel"),
    "no high bit": (changed(CT, drop("HighBit")), "no HighBit"),
    "no series": (changed(CT, drop("SeriesInstanceUID")), "no SeriesInstanceUID"),
    "no study": (changed(CT, drop("StudyInstanceUID")), "no StudyInstanceUID"),
    "a spacing of words": (renamed(CT, b"0.661468\\0.661468", b"abcdefgh\\abcdefgh"), "could not convert"),
    "a slope of almost nothing": (changed(CT, put(RescaleSlope="1e-320")), "slope of 9.99989e-321"),
    "a window that is no number": (changed(CT, put(Modality="MR", WindowCenter="nan", WindowWidth=9)), "window VOI"),
    "a pipe": (lambda path: os.mkfifo(path), "is not a regular file"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "No such file"),
    "a high-throughput JPEG 2000": (
        changed(MR_J2K, lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.4.201")),
        "does not decode|pip install pylibjpeg pylibjpeg-openjpeg",
    ),
    "frames that are a word": (changed(EMR, lambda d: d["NumberOfFrames"].__setattr__("_value", "ten")), "cannot be"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_cannot_be_released_is_one_line_that_names_the_file(case: str, tmp_path: Path) -> None:
    make, said = MALFORMED[case]
    path = tmp_path / "odd.dcm"
    make(path)
    needs_flag = "identity" in said
    with pytest.raises(UserError, match=said) as caught:
        dicom.read(path, identified=not needs_flag)
    assert "odd.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_full_disk_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    stored = dicom.read(dicom_file("CT_small.dcm"), identified=True)
    monkeypatch.setattr(Dataset, "save_as", full)
    with pytest.raises(OSError, match="No space left"):
        dicom_release.write(tmp_path / "x.dcm", dicom_file("CT_small.dcm"), stored.values, IDENTITY)
