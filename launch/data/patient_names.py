"""File names that may tell who a patient is: simple signs for a person to look at. None of them proves anything."""

import re

_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|[12]\d|3[01])([-_.]?)(?:0[1-9]|1[0-2])\2(?:19|20)\d\d)(?!\d)"
)
"""A day of 1900 to 2099, year first or last."""

_NUMBER = re.compile(r"(?<!\d)[1-9]\d{5,9}(?!\d)")
"""Six to ten digits, as record numbers have; those that begin with zeros are mostly counters."""

_WORD = re.compile(r"[A-Z][a-zà-ÿ]{2,}")

_NO_NAMES = frozenset(
    {
        *("abnormal", "adeno", "anterior", "axial", "baseline", "benign", "bilateral", "biopsy", "border", "breast"),
        *(
            "brain",
            "case",
            "chest",
            "colon",
            "coronal",
            "crop",
            "cyst",
            "data",
            "dataset",
            "doppler",
            "figure",
            "final",
        ),
        *("frame", "frontal", "fundus", "image", "kidney", "label", "lateral", "left", "lesion", "liver", "lung"),
        *("malignant", "mask", "melanoma", "nevus", "nodule", "normal", "original", "patient", "pneumonia", "polyp"),
        *("posterior", "protected", "retina", "right", "sagittal", "sample", "scan", "segmentation", "series", "slice"),
        *("study", "subject", "test", "train", "tumor", "tumour", "ultrasound", "view", "volume", "xray"),
    }
)
"""Words of which two do not make a person."""


def sign_of_patient(stem: str) -> str | None:
    """Why a file name without its suffix looks like a patient's; None where it does not."""
    if "^" in stem:
        return "a person's name as DICOM writes it"
    if _DATE.search(stem):
        return "a date"
    if _NUMBER.search(stem):
        return "a long number"
    parts = [part for part in re.split(r"[\s_,.-]+", stem) if part]
    words = [part for part in parts if _WORD.fullmatch(part) and part.lower() not in _NO_NAMES]
    return "two capitalised words, as a person's name has" if len(words) >= 2 else None
