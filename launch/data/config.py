"""How medical files are read, as a person says it."""

from dataclasses import dataclass

from medveil.config import Settings, setting

MEDICAL = "DICOM, NIfTI and 16 bits"


@dataclass(frozen=True)
class Reading(Settings):
    """How DICOM, NIfTI and 16-bit files are looked at."""

    windows: str | None = setting(
        None,
        "windows that the bound holds under: ct, ct+brain, or such as 400/40,80/40; by default the files' own",
        metavar="WIDTH/CENTRE,..",
        group=MEDICAL,
    )
    labels: tuple[int, ...] = setting(
        (), "values of label maps that are foreground; by default all", low=1, group=MEDICAL
    )
    labels_from: str | None = setting(
        None,
        "the class of each image of a folder without class folders: a CSV file with the columns id and class",
        metavar="CSV",
        group="what",
    )
    identified: bool = setting(
        False, "read DICOM files that do not say that the patient's identity was removed, too", group=MEDICAL
    )


AS_THEY_ARE = Reading()
"""Files say themselves what they are looked at through."""
