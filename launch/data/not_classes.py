"""Folders that look like classes and are images with their masks: noise in a label map would ruin it."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from medveil.errors import UserError
from medveil.launch.data.layout import MASK_NAME

F = TypeVar("F")

_NAMES = re.compile(
    r"(images?|imgs?)[ _-]?(tr|ts|train|test)?"
    r"|(labels?|masks?|gts?|ground[ _-]?truths?)(tr|ts|[ _-].*)?"
    r"|seg(?!mented).*",
    re.IGNORECASE,
)
_LOOKED_AT = 5
_VALUES = 32
"""A label map has at most so many values."""


def refuse_masks(folder: Path, classes: Mapping[str, Mapping[str, F]], values: Callable[[F], npt.NDArray[Any]]) -> None:
    """Raise UserError when a class of ``folder`` has the name of images or masks, or holds masks of another's files.

    ``classes``: the image files of each by their stems; ``values``: reads one, raising UserError. Equal stems alone say
    nothing: many number the files of every class from 1.
    """
    alike: dict[frozenset[str], list[str]] = defaultdict(list)
    for name, files in classes.items():
        if _NAMES.fullmatch(name):
            raise UserError(
                f"{folder} has a folder {name}, which is no class: put images into images/ and masks of the same names "
                "into masks/, or rename it if it is one"
            )
        if (mask := next(filter(MASK_NAME.fullmatch, files), None)) is not None:
            raise UserError(
                f"{folder}/{name} holds {mask}, which is called as a mask: put images into images/ and masks of the "
                "same names into masks/, or rename it if it is none"
            )
        alike[frozenset(files)].append(name)
    for stems, names in alike.items():
        some = sorted(stems)[:_LOOKED_AT]
        flat = {name: [_is_flat(classes[name][stem], values) for stem in some] for name in names if len(names) > 1}
        for images, masks in permutations(flat, 2):
            if all(flat[masks]) and not any(flat[images]):
                raise UserError(
                    f"{folder} holds {images}/ and {masks}/ with files of the same names, and those of {masks}/ look "
                    "like masks: call them images/ and masks/"
                )


def _is_flat(file: F, values: Callable[[F], npt.NDArray[Any]]) -> bool:
    """Whether an image has so few values that it may be a label map."""
    try:
        return len(np.unique(values(file))) <= _VALUES
    except UserError:
        return False  # said when it is read
