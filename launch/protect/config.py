"""What to protect, how, and where to, as a person says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medveil.config import Settings, about, setting, side
from medveil.launch.data.config import AS_THEY_ARE, MEDICAL, Reading
from medveil.launch.running.machine import HERE, Machine
from medveil.launch.running.places import run_beside
from medveil.protector import Empty

Preset = Literal["auto", "cpu", "gpu", "paper", "demo"]

DATA = "a folder, a MedMNIST npz, medmnist:NAME[:SIZE], phantom:seg or phantom:cls"

WHAT, WHERE, HOW, KEYS = "what", "where", "how", "keys"


@dataclass(frozen=True)
class PartOptions(Settings):
    """What of a data set is protected; nothing said: all of it."""

    classes: tuple[str, ...] = setting((), "only these classes get noise: names, or numbers from 0", group=WHAT)
    share: float | None = setting(
        None, "only so much of the images is known and gets noise", unit="percent", low=0, high=100, group=WHAT
    )
    support: str | None = setting(
        None, "whose classes stand in, during the fit, for those that one does not have", metavar="DATA", group=WHAT
    )
    support_classes: tuple[str, ...] = setting((), "classes of --support that do; by default all", group=WHAT)

    def __bool__(self) -> bool:
        return bool(self.classes or self.support or self.support_classes) or self.share is not None


@dataclass(frozen=True)
class KeyOptions(Settings):
    """Which keys are written, by which an authorised user restores originals from the release."""

    key: Path | None = setting(None, "also write an encrypted key, which restores the originals", group=KEYS)
    key_for: list[str] = setting(
        [],
        "a key for a part: a class, a group of --groups, or a pattern of ids such as patient7_*; once a part",
        metavar="PART=PATH",
        group=KEYS,
    )
    key_from: list[str] = setting(
        [],
        "32 random bytes that open it (else a passphrase: MEDVEIL_PASSPHRASE, or asked for); once, or once a key",
        group=KEYS,
    )


@dataclass(frozen=True)
class ProtectJob(Machine):
    """One protect job. Plain values, so that it can be pickled.

    ``options``: fields of the method's configuration, over those of ``preset`` ("auto": "gpu" where there is one, else
    "cpu"; None: the paper's defaults). ``shards``: not for methods that keep noise between visits, on a CPU only.
    ``run``: folder for the private run (None: ``.OUT.run`` beside ``out``). Without ``cache`` a set larger than memory
    is unpacked there while the job runs.

    What is drawn or chosen by default is kept in the run folder, so that a restart elsewhere takes the same.
    """

    method: str
    data: str = field(metadata=about(DATA, metavar="DATA", group=WHAT))
    out: Path = field(metadata=about("the release folder to write; it must not exist", metavar="RELEASE", group=WHERE))
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: Preset | None = setting(None, "settings that go together; auto: gpu if there is one, else cpu", group=HOW)
    seed: int | None = setting(
        None,
        "seed of every random draw; by default a secret one, kept in the private run folder",
        low=0,
        high=2**63 - 1,
        group=HOW,
    )
    size: int | None = side(
        "side of the squares that the images of folders are released as; by default each keeps its own size", WHAT
    )
    holdout: float = setting(
        0.0, "share of the images that is neither fitted nor released, to test on", low=0, below=1, group=WHAT
    )
    groups: str | None = setting(
        None,
        "which images belong together, as those of one patient, on one side of --holdout and for --key-for: a CSV file "
        "with the columns id and group, or a pattern of ids such as ^([^_]+)_",
        metavar="CSV|REGEX",
        group=WHAT,
    )
    holdout_seed: int = setting(0, "which images are held out", group=WHAT)
    part: PartOptions = field(default_factory=PartOptions)
    splits: tuple[str, ...] = setting(("train",), "parts of an npz to protect, such as train,val", group=WHAT)
    skip_bad: bool = setting(
        False, "files that cannot be used are left out, and listed, instead of refusing the set", group=WHAT
    )
    empty: Empty | None = setting(
        None, "images with nothing to protect; by default they are dropped from sets with masks", group=WHAT
    )
    licence: str | None = setting(None, "the terms, as text, for the release's manifest", metavar="TEXT", group=WHERE)
    processes: int = setting(1, "processes on this machine", low=1, group=HERE)
    shards: int = setting(
        1, "the same bytes from 1, 2, 4.. to N processes (a power of 2) of as many threads", low=1, group=HERE
    )
    fit_windows: Literal["drawn", "first"] = setting(
        "drawn",
        "of several windows the fit sees each slice under one, drawn by its id, or all under the first",
        group=MEDICAL,
    )
    run: Path | None = None
    reading: Reading = AS_THEY_ARE

    @property
    def run_root(self) -> Path:
        return self.run or run_beside(self.out)


def beside(data: str) -> Path:
    """Where the release of ``data`` goes unless told: FOLDER-protected beside FOLDER, or here for what is no file."""
    path = Path(data).expanduser()
    if path.exists():
        return path.absolute().with_name(f"{path.resolve().stem if path.is_file() else path.resolve().name}-protected")
    return Path(re.sub(r"[^A-Za-z0-9]+", "-", data) + "-protected")
