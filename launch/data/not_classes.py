"""Folders that look like classes and are images with their masks: noise in a label map would ruin it."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from medveil.errors import UserError
from medveil.launch.data.images import read_image

_NAMES = re.compile(
    r"(images?|imgs?)[ _-]?(tr|ts|train|test)?"
    r"|(labels?|masks?|gts?|ground[ _-]?truths?)(tr|ts|[ _-].*)?"
    r"|seg(?!mented).*",
    re.IGNORECASE,
)
_LOOKED_AT = 5
_VALUES = 32
"""A label map has at most so many values."""


def refuse_masks(folder: Path, classes: Mapping[str, Sequence[Path]]) -> None:
    """Raise UserError when a class of ``folder`` has the name of images or masks, or holds masks of another's files.

    ``classes``: the image files of each. Equal names alone say nothing: many number the files of every class from 1.
    """
    for name in classes:
        if _NAMES.fullmatch(name):
            raise UserError(
                f"{folder} has a folder {name}, which is no class: put images into images/ and masks of the same names "
                "into masks/, or rename it if it is one"
            )
    for one, other in combinations(classes, 2):
        mine, theirs = ({path.stem: path for path in classes[name]} for name in (one, other))
        if set(mine) != set(theirs):
            continue
        some = sorted(mine)[:_LOOKED_AT]
        flat = [(_is_flat(mine[stem]), _is_flat(theirs[stem])) for stem in some]
        if all(pair == (False, True) for pair in flat) or all(pair == (True, False) for pair in flat):
            masks = other if flat[0][1] else one
            raise UserError(
                f"{folder} holds {one}/ and {other}/ with files of the same names, and those of {masks}/ look like "
                "masks: call them images/ and masks/"
            )


def _is_flat(path: Path) -> bool:
    """Whether an image has so few values that it may be a label map."""
    try:
        return len(np.unique(read_image(path).pixels)) <= _VALUES
    except UserError:
        return False  # said when it is read
