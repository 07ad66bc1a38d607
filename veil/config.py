"""Every setting of Veil, with its default."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from medveil.config import Levels, budget, setting
from medveil.errors import UserError
from medveil.method import MethodSettings, Presets, Recipes
from medveil.sparsity import check_selects
from medveil.task import Task
from medveil.umed.config import UMedConfig

_RADIUS: Mapping[Task, float] = {"segmentation": 4 / 255, "classification": 8 / 255}
"""UMed's bound and SALM's."""

_COARSE_FROM = 64
"""The shorter side of images, in pixels, on which a checkerboard is coarse: smaller ones are given up to attacks."""


UNFITTED = frozenset({"checkerboard", "rows"})
"""Kinds of noise for which nothing is fitted, each a fixed tile of that name."""

_LEARNED = frozenset({"generator", "pattern", "classes"})
_ON_MASKS = UNFITTED | {"raced", "generator", "pattern"}
_USED_BY: Mapping[str, frozenset[str]] = {
    "k": frozenset({"classes"}),
    **dict.fromkeys(("noise", "region", "band", "texture", "lbp", "scales"), _ON_MASKS),
    "colour_cell": UNFITTED | {"raced"},
    "tile": frozenset({"pattern"}),
    "alone": frozenset({"generator", "pattern"}),
    **dict.fromkeys(("swap", "masking", "pipeline_from"), _LEARNED),
    "pipeline": _LEARNED | {"raced"},
}
"""For settings of what the noise is and withstands, the kinds of noise that they say something of."""


@dataclass(frozen=True)
class VeilConfig(MethodSettings):
    """Settings of Veil. Bounds are on the [0, 1] scale, shares are of a whole of 1."""

    name: ClassVar[str] = "veil"
    tasks: ClassVar[frozenset[Task]] = frozenset({"segmentation", "classification"})
    presets: ClassVar[Presets] = {
        "paper": {},
        "gpu": {},
        "cpu": {"width": 8, "steps": 3600},
        "demo": {"width": 8, "steps": 300, "restart": 60, "heat": 20},
    }
    recipes: ClassVar[Recipes] = {
        "segmentation": {
            "cells of 4 pixels": {"noise": "checkerboard", "cell": 4},
            "cells of 4 pixels, and of 16 of colour": {"noise": "checkerboard", "cell": 4, "colour_cell": 16},
            "rows of 6 pixels, and of 16 of colour": {"noise": "rows", "cell": 6, "colour_cell": 16},
            "cells of 4, 8 and 16 pixels": {"noise": "checkerboard", "cell": 4, "scales": 3},
            "cells of 2 pixels": {"noise": "checkerboard", "cell": 2},
            "cells of 1 pixel": {"noise": "checkerboard", "cell": 1},
        },
        "classification": {
            "all elements": {"k": 100},
            "cells of 4 pixels, through the thief's pipeline": {
                "k": 100,
                "cell": 4,
                "pipeline": 1,
                "pipeline_from": 0,
            },
        },
    }

    eps: Levels | None = budget(
        None, "largest change of a pixel; by default 4/255 for images with masks, 8/255 for classes"
    )
    k: float = setting(
        10.0,
        "share of the elements in which a class's noise lies, those with the largest gradients",
        unit="percent",
        above=0,
        high=100,
        group="noise",
    )
    region: Literal["roi", "roi+contour"] = setting(
        "roi",
        "where noise is allowed, of images with masks: exactly on the mask, so that noise alone tells it, or on the "
        "contour band on both sides of its edge too",
        group="noise",
    )
    band: int = setting(1, "radius of the contour band", unit="pixels", low=1, group="noise")
    texture: Literal["lbp", "fixed"] = setting(
        "fixed", "bound inside the region of interest: eps everywhere, or by the local binary pattern", group="noise"
    )
    lbp: Literal["default", "ror", "uniform"] = setting(
        "default", "variant of the local binary pattern behind the texture bound", group="noise"
    )
    noise: Literal["checkerboard", "rows", "raced", "generator", "pattern"] = setting(
        "checkerboard",
        "on masks: a checkerboard or rows, for which nothing is fitted; of several fixed tiles the one that fresh "
        "surrogates meet first; a U-Net's output for each image; or one learned tile for all",
        group="noise",
    )
    tile: int = setting(8, "side of the learned tile", unit="cells", low=2, group="noise")
    scales: int = setting(
        1,
        "equal parts of the noise, of cells of cell, twice and four times as many pixels, ...",
        low=1,
        high=5,
        group="noise",
    )
    cell: int | None = setting(
        None,
        "side of the cells that tiles and the pictures of classes are made of; by default 4 for the checkerboard and "
        "rows on images of at least 64 pixels, else 1",
        unit="pixels",
        low=1,
        group="noise",
    )
    colour_cell: int | None = setting(
        None,
        "one more equal part of a fixed tile, in cells of green against red and blue; their side",
        unit="pixels",
        low=1,
        group="noise",
    )
    alone: float = setting(
        0.0, "share of the samples that show the surrogate one scale without the others", low=0, high=1
    )
    swap: float = setting(0.5, "share of the samples whose noise is shown on another sample's image", low=0, high=1)
    surrogates: int = setting(3, "surrogates in turn", low=1)
    restart: int = setting(400, "steps of its own after which a surrogate starts anew", unit="steps", low=1)
    heat: int = setting(120, "steps for which a fresh surrogate learns from a tile in each round of the race", low=1)
    masking: float = setting(0.0, "share of the samples whose noise lacks a band of frequencies", low=0, high=1)
    pipeline: float = setting(
        0.0, "share of the steps whose images go through blur, JPEG, a resizer or the like", low=0, high=1
    )
    pipeline_from: float = setting(
        0.3,
        "share of the fit before the pipeline sets in, mildly, to grow until the end; a race has all of it at once",
        low=0,
        below=1,
    )
    steps: int = setting(6000, "length of the fit", unit="steps", low=1)
    batch_size: int = setting(16, "images of one step", low=2)
    learning_rate: float | None = setting(
        None,
        "learning rate of the noise (Adam); by default 1e-3 for a generator, 0.03 for what is learned itself",
        above=0,
    )
    surrogate_learning_rate: float = setting(1e-3, "learning rate of the surrogates (Adam)", above=0)
    width: int = setting(64, "channels of the first level of the generator and the surrogates", low=1)
    depth: int = setting(4, "levels of the generator and the surrogates below the first", low=1, high=8)
    seed: int = setting(0, "seed of every random draw")

    def check(self, task: Task, channels: int, size: tuple[int, int]) -> None:
        """Raise UserError for a setting that is no default and would be dropped in silence on data of ``task``, and for
        a k that selects nothing of images of ``channels`` and ``size``, height and width."""
        kind = self.noise if task == "segmentation" else "classes"
        where = f"noise {kind}" if task == "segmentation" else "images with classes"
        where += ", for which nothing is fitted" if kind in UNFITTED else ""
        given = [name for name in _USED_BY if getattr(self, name) != getattr(type(self), name)]
        for name in given:
            if kind not in _USED_BY[name]:
                raise UserError(f"{name} says nothing of {where}: leave {name} away")
        if "lbp" in given and self.texture != "lbp":
            raise UserError(f"lbp is of texture lbp, and texture is {self.texture}: leave lbp away")
        if "band" in given and self.region == "roi" and self.texture == "fixed":
            raise UserError("band says nothing where region is roi and texture is fixed: leave band away")
        if "alone" in given and self.scales == 1:
            raise UserError("alone shows one scale without the others: give scales of 2 or more")
        if kind == "classes":
            check_selects(self.k, channels * math.prod(size))

    def smallest_cell(self, task: Task, size: tuple[int, int]) -> int:
        """The side of the smallest cells of the noise on images of ``size``, in pixels.

        Cells of 4 withstand attacks that take single pixels away, and are met on images that are large enough.
        """
        if self.cell is not None:
            return self.cell
        coarse = task == "segmentation" and self.noise in UNFITTED and min(size) >= _COARSE_FROM
        return 4 if coarse else 1

    def rate(self, generator: bool) -> float:
        """The learning rate of the noise."""
        return self.learning_rate or (1e-3 if generator else 0.03)

    def radius(self, task: Task) -> float:
        """The largest change of a pixel, on the [0, 1] scale."""
        return _RADIUS[task] if self.eps is None else self.eps

    @property
    def place(self) -> UMedConfig:
        """Where UMed's maps allow noise, and how much of it."""
        return UMedConfig(
            eps=self.radius("segmentation"),
            band=self.band,
            band_side="inner" if self.region == "roi" else "both",
            texture=self.texture,
            lbp=self.lbp,
        )

    def strength(self, step: int) -> float:
        """Of the thief's pipeline at ``step``: 0 until it sets in, 1 at the end of the fit."""
        return max(0.0, (step / self.steps - self.pipeline_from) / (1 - self.pipeline_from))
