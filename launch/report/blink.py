"""Original, protected and amplified noise of a few images as PNG, to be laid over each other on the page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medveil.launch.report.labels import Labels
from medveil.launch.report.sheets import Samples, amplified, kept_samples
from medveil.launch.report.summary import Row

SHOWN = 2
"""Images of each release."""


@dataclass(frozen=True)
class Views:
    """One image as data URIs; its sides in pixels."""

    original: str
    protected: str
    noise: str
    width: int
    height: int


@dataclass(frozen=True)
class Blink:
    """The images of one release. ``gain``: how many times as strong the noise is shown; ``largest``: grey levels."""

    label: str
    gain: int
    largest: int
    views: list[Views]


def blinks_of(rows: Sequence[Row]) -> list[Blink]:
    """One for each release of one data set that kept images, at most as many of a protector as there are sheets."""
    labels = Labels.of(rows)
    return [_blink(labels.protector(row), samples) for row, samples in kept_samples(rows)]


def _blink(label: str, samples: Samples) -> Blink:
    noise, gain, largest = amplified(samples.noise[:SHOWN])
    _, height, width, _ = samples.original.shape
    triples = zip(samples.original[:SHOWN], samples.protected[:SHOWN], noise, strict=True)
    views = [Views(_png(one), _png(other), _png(grey), width, height) for one, other, grey in triples]
    return Blink(label, gain, largest, views)


def _png(image: NDArray[np.uint8]) -> str:
    """``image`` [H, W, C] as a data URI."""
    content = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(content, "PNG", optimize=True)
    return data_uri(content.getvalue())


def data_uri(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def inline(path: Path) -> str:
    """The PNG file ``path`` as such an address."""
    return data_uri(path.read_bytes())
