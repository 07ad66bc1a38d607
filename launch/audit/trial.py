"""One training of an audit: on which images, on which it is tested, and how."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medveil.config import plain
from medveil.launch.audit.samples import Selection, originals_by_id
from medveil.launch.exploiters.attacks import Chain, Thief, parse_attack
from medveil.launch.exploiters.attacks.base import VALIDATION
from medveil.launch.exploiters.config import ExploiterConfig
from medveil.launch.exploiters.names import VOLUMETRIC
from medveil.launch.exploiters.regions import Regions
from medveil.launch.running.files import sha256_of


@dataclass(frozen=True)
class Trial:
    """One training to be done, as plain values: on what, on what it is tested, and how.

    ``clean``: the originals of all of the data set that ``train`` is of. ``weights``: a file of pretrained weights.
    ``private``: the private run of the release, if it does not lie beside it.
    ``side``: "clean" or "protected", for people. ``look``: as of :class:`medveil.launch.data.opening.Opener`, how the
    training looks at medical files.
    """

    train: Selection
    test: Selection
    config: ExploiterConfig
    attack: str = "none"
    clean: Selection | None = None
    weights: Path | None = None
    private: Path | None = None
    side: str = "protected"
    look: str = "first"

    @property
    def label(self) -> str:
        looked = "" if self.look == "first" else f" ({self.look})"
        return f"{self.config.model} on {self.side} images{looked}, attack {self.attack}, seed {self.config.seed}"

    @property
    def variants(self) -> list[Chain]:
        """The settings of the attack that are tried."""
        return parse_attack(self.attack).variants()

    def validates(self, attack: Chain) -> bool:
        """Whether some images are validated on, with ``attack`` of :attr:`variants`."""
        return attack.chooses or len(self.variants) > 1

    def identity(self, attack: Chain) -> tuple[dict[str, Any], list[str]]:
        """What the outcome depends on: settings, and fingerprints of the data."""
        values: dict[str, Any] = {"job": "exploit", "exploiter": plain(self.config), "attack": str(attack)}
        known = [self.train.fingerprint(), self.test.fingerprint()]
        if len(labels := self.train.source.labels) > 1:
            values["labels"] = list(labels)
        if self.look != "first":
            values["look"] = self.look
        if self.validates(attack):
            values["validation"] = VALIDATION
        if self.clean is not None and self._takes_originals(attack):
            known.append(self.clean.fingerprint())
        if self.weights is not None and attack.needs("weights"):
            known.append(sha256_of(self.weights))
        return values, known

    def opened(self) -> "Trial":
        """As it is trained: the images as it looks at them, with each label of several as a target of its own; for a
        model of three dimensions whole volumes.
        """
        parts = [part for part in (self.train, self.test, self.clean) if part is not None]
        labels, depth = self.train.source.labels, 0
        if self.config.model in VOLUMETRIC:
            labels, depth = (), max(part.source.deepest for part in parts)

        def seen(part: Selection) -> Selection:
            opener = replace(part.opener, look=self.look)
            return replace(part, labels=labels if len(labels) > 1 else (), depth=depth, opener=opener)

        clean = None if self.clean is None else seen(self.clean)
        return replace(self, train=seen(self.train), test=seen(self.test), clean=clean)

    @property
    def regions(self) -> Regions:
        """What Dice is counted for."""
        volumes = {**self.train.source.volumes, **self.test.source.volumes}
        return Regions(self.train.labels, {name: name for name in volumes.values()} if self.train.depth else volumes)

    def thief(self, attack: Chain, copies: Path) -> Thief:
        """Who tries it, with what ``attack`` takes."""
        clean = self.clean if self._takes_originals(attack) else None
        originals = None if clean is None else originals_by_id(clean, self.train)
        whose = self.train.fingerprint() + ("" if clean is None else clean.fingerprint())
        return Thief(originals=originals, weights=self.weights, model=self.config.model, copies=(copies, whose))

    def _takes_originals(self, attack: Chain) -> bool:
        return self.validates(attack) or attack.needs("originals")
