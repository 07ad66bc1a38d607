"""What programs that train on a set want to be told of it: nnU-Net's description, and MONAI's list."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from medveil.errors import UserError
from medveil.launch.reading import STORED, read_as

DATASET = "dataset.json"
"""nnU-Net's description of a set."""

DATALIST = "datalist.json"
"""MONAI's list of the images of a set, as ``monai.data.load_decathlon_datalist`` reads it."""


class Listed(Protocol):
    """An image, by its ``name`` in a release and that of its ``mask``."""

    @property
    def name(self) -> str: ...

    @property
    def mask(self) -> str | None: ...


@dataclass(frozen=True)
class Description:
    """What nnU-Net is told of a set."""

    __pydantic_config__ = STORED

    channel_names: dict[str, str]
    labels: dict[str, int | list[int]]
    file_ending: str

    @staticmethod
    def read(root: Path) -> "Description":
        """That of the set in ``root``. Raises UserError for a file that is none."""
        try:
            return read_as(Description, root / DATASET, "nnU-Net's description of a set", "write it anew")
        except FileNotFoundError:
            raise UserError(f"{root / DATASET} is not there any more") from None

    @property
    def is_ct(self) -> bool:
        """Whether all channels are."""
        return bool(self.channel_names) and all(name.upper() == "CT" for name in self.channel_names.values())

    def of(self, files: Sequence[Listed]) -> Mapping[str, str]:
        """Of a release of ``files``: what nnU-Net needs, and nothing else that was written there; and MONAI's list."""
        described = {**asdict(self), "numTraining": len({file.mask for file in files})}
        return {DATASET: _text(described), **datalist(files)}


def datalist(files: Sequence[Listed]) -> Mapping[str, str]:
    """:data:`DATALIST` of a release of ``files``, where these have masks: the images of one mask are its channels."""
    cases: dict[str, list[str]] = {}
    for file in files:
        if file.mask is not None:
            cases.setdefault(file.mask, []).append(file.name)
    if not cases:
        return {}
    training = [{"image": names[0] if len(names) == 1 else names, "label": mask} for mask, names in cases.items()]
    return {DATALIST: _text({"training": training})}


def _text(values: object) -> str:
    return json.dumps(values, indent=1) + "\n"
