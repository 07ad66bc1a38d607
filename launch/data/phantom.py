"""Generated images that stand in for medical ones: textured, with lesions, the same for everyone."""

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.filters import gaussian

from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.launch.data.source import Source

VERSION = 2
"""Counts up when the images change: it is part of the fingerprint."""

CLASSES = ["blob", "ring", "stripes", "cross"]

Image = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def open_phantom(spec: str, size: int | None = None) -> Source:
    """``phantom:seg[:N[:SIZE]]`` (400 of 64x64) or ``phantom:cls[:N[:SIZE]]`` (1200 of 28x28), a quarter more to test.

    Image i depends on i and SIZE alone, so a smaller N gives the first images of a larger one.
    """
    kind, *numbers = spec.split(":")[1:]
    if kind not in ("seg", "cls") or len(numbers) > 2 or not all(n.isdecimal() for n in numbers):
        raise UserError(f"{spec} is not a generated set: give phantom:seg[:N[:SIZE]] or phantom:cls[:N[:SIZE]]")
    segmentation = kind == "seg"
    count = int(numbers[0]) if numbers else (400 if segmentation else 1200)
    typed = int(numbers[1]) if len(numbers) == 2 else None
    if None not in (typed, size) and typed != size:
        raise UserError(f"{spec} has size {typed} but --size is {size}: give one of them")
    side = typed or size or (64 if segmentation else 28)
    if not 4 <= count <= 100_000 or not 16 <= side <= 1024:
        raise UserError(f"{spec}: 4 to 100000 images with a side of 16 to 1024 pixels can be generated")
    name = f"phantom-{kind}"
    data, test = _drawn(segmentation, count, side)
    return Source(
        spec=spec,
        name=name,
        kind="phantom",
        data=data,
        test=test,
        class_names=None if segmentation else CLASSES,
        notes=[],
        fingerprint=hashlib.sha256(f"{name} {VERSION} {count} {side}".encode()).hexdigest(),
    )


@lru_cache(maxsize=1)
def _drawn(segmentation: bool, count: int, side: int) -> tuple[ArrayDataset, ArrayDataset]:
    """The images to protect and those to test on: kept, because every job of a sweep opens the same ones."""
    make = _segmentation if segmentation else _classes
    return make("", count, side), make("test-", max(4, count // 4), side)


def _generator(kind: str, part: str, index: int, side: int) -> np.random.Generator:
    digest = hashlib.sha256(f"phantom {VERSION} {kind} {part}{index} {side}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _segmentation(part: str, count: int, side: int) -> ArrayDataset:
    images = np.empty((count, 1, side, side), np.uint8)
    masks = np.empty((count, 1, side, side), np.uint8)
    for i in range(count):
        image, mask = _lesions(_generator("seg", part, i, side), side)
        images[i, 0], masks[i, 0] = _levels(image), mask
    ids = [f"phantom/{part}{i}" for i in range(count)]
    return ArrayDataset(torch.from_numpy(images), torch.from_numpy(masks), ids, "segmentation", 1)


def _classes(part: str, count: int, side: int) -> ArrayDataset:
    images = np.empty((count, 1, side, side), np.uint8)
    targets = np.empty(count, np.int64)
    for i in range(count):
        rng = _generator("cls", part, i, side)
        targets[i] = rng.integers(len(CLASSES))
        images[i, 0] = _levels(_figure(rng, side, CLASSES[targets[i]]))
    ids = [f"phantom/{part}{i}" for i in range(count)]
    return ArrayDataset(torch.from_numpy(images), torch.from_numpy(targets), ids, "classification", len(CLASSES))


def _levels(image: Image) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _grid(side: int) -> tuple[Image, Image]:
    """Row and column of each pixel centre in [0, 1]."""
    axis = (np.arange(side) + 0.5) / side
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _noise(rng: np.random.Generator, side: int, sigma: float) -> Image:
    """Smooth noise of mean 0 and deviation 1; ``sigma`` in pixels."""
    field: Image = gaussian(rng.standard_normal((side, side)), sigma, mode="reflect")
    field -= field.mean()
    return field / field.std()


def _background(rng: np.random.Generator, side: int, gradient: float) -> Image:
    """Tissue in grey levels: illumination that falls by up to ``gradient`` along each axis, and noise of two scales."""
    rows, columns = _grid(side)
    slope = rng.uniform(-gradient, gradient, 2)
    image = rng.uniform(95, 145) + slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5)
    for share, amplitude in ((8, 7.0), (24, 5.0)):
        image = image + amplitude * _noise(rng, side, side / share)
    return image


def _speckle(rng: np.random.Generator, image: Image, noise: float) -> Image:
    """Multiplicative grain, as of ultrasound, and a sensor's white noise of deviation ``noise`` grey levels.

    Without the latter, random noise of four grey levels on a lesion would itself give the lesion away.
    """
    grainy = image * (1 + 0.04 * _noise(rng, len(image), 0.6))
    return grainy + noise * rng.standard_normal(image.shape)


def _vessel(rng: np.random.Generator, side: int) -> Image:
    """A thin bowed line across the image, as a share in [0, 1] of each pixel."""
    rows, columns = _grid(side)
    angle, offset, bow = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3), rng.uniform(-0.6, 0.6)
    along = (rows - 0.5) * np.cos(angle) + (columns - 0.5) * np.sin(angle)
    across = (columns - 0.5) * np.cos(angle) - (rows - 0.5) * np.sin(angle)
    return np.exp(-(((across - offset - bow * along**2) / rng.uniform(0.012, 0.022)) ** 2))


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.integers(2) else -1


def _radius(rng: np.random.Generator, side: int, centre: Any, mean: float) -> Image:
    """Distance from ``centre`` over the radius of an irregular ellipse, whose mean is ``mean``: below 1 inside."""
    rows, columns = _grid(side)
    dy, dx = rows - centre[0], columns - centre[1]
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.6)
    u = (dy * np.cos(angle) + dx * np.sin(angle)) * np.sqrt(stretch)
    v = (dx * np.cos(angle) - dy * np.sin(angle)) / np.sqrt(stretch)
    theta = np.arctan2(u, v)
    edge = np.full_like(theta, mean)
    for wave in (2, 3, 5):
        edge += mean * rng.uniform(0, 0.12) * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v) / edge


def _lesions(rng: np.random.Generator, side: int) -> tuple[Image, Mask]:
    """One or two lesions, brighter or darker than the tissue, among vessels and grains that are neither."""
    image = _background(rng, side, 60)
    for _ in range(rng.integers(1, 4)):
        image += _sign(rng) * rng.uniform(25, 50) * _vessel(rng, side)
    for _ in range(rng.integers(2, 6)):
        rows, columns = _grid(side)
        row, column = rng.uniform(0, 1, 2)
        grain = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / rng.uniform(0.014, 0.024) ** 2)
        image += _sign(rng) * rng.uniform(25, 60) * grain
    mask = np.zeros((side, side), bool)
    for _ in range(rng.integers(1, 3)):
        radius = _radius(rng, side, rng.uniform(0.2, 0.8, 2), rng.uniform(0.09, 0.2))
        inside = 1 / (1 + np.exp((radius - 1) / 0.06))
        contrast = _sign(rng) * rng.uniform(32, 60)
        image += inside * ((contrast + 5 * _noise(rng, side, side / 32)) * (1 - mask))
        mask |= radius < 1
    return _speckle(rng, image, 2.5), mask


def _figure(rng: np.random.Generator, side: int, name: str) -> Image:
    """One lesion of the named form on tissue with a vessel."""
    image = _background(rng, side, 25) + _sign(rng) * rng.uniform(15, 35) * _vessel(rng, side)
    mean = rng.uniform(0.2, 0.3)
    centre = rng.uniform(0.33, 0.67, 2)
    radius = _radius(rng, side, centre, mean)
    inside = 1 / (1 + np.exp((radius - 1) / 0.08))
    rows, columns = _grid(side)
    angle = rng.uniform(0, np.pi)
    across = (rows - centre[0]) * np.cos(angle) + (columns - centre[1]) * np.sin(angle)
    along = (columns - centre[1]) * np.cos(angle) - (rows - centre[0]) * np.sin(angle)
    if name == "blob":
        form = inside
    elif name == "ring":
        form = np.exp(-(((radius - 0.85) / 0.25) ** 2))
    elif name == "stripes":
        form = inside * (0.5 + 0.5 * np.cos(2 * np.pi * across / (0.55 * mean) + rng.uniform(0, 2 * np.pi)))
    else:
        form = np.maximum(*(np.exp(-((arm / 0.05) ** 2)) * (radius < 1.3) for arm in (across, along)))
    return _speckle(rng, image + _sign(rng) * rng.uniform(40, 75) * form, 6)
