"""Every setting and the presets of the protectors to compare with. Bounds are on the [0, 1] scale."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from medveil.config import Levels, budget, setting
from medveil.errors import UserError
from medveil.method import MethodSettings, Presets
from medveil.salm.config import SALMConfig
from medveil.task import Task

Region = Literal["image", "contour", "roi", "roi+contour"]
Wise = Literal["sample", "class"]

_EPS = "largest change of a pixel; by default 4/255 for segmentation (UMed's), 8/255 otherwise (SALM's)"
_PSNR = "the noise is scaled until the saved images have this PSNR on average, below or beyond eps"
_SEED = "seed of every random draw"
_NARROW: Mapping[str, Any] = {"width": 8, "unet_width": 8, "unet_learning_rate": 1e-3}
"""Surrogates that a CPU can train, with a rate for them."""

REGULAR = ("checkerboard", "rows", "columns")
"""Patterns of which nothing is drawn."""

_OF_VARIANT: Mapping[str, tuple[str, ...]] = {
    "alternating": ("rounds", "model_steps", "noise_steps", "relative_step", "stop_error", "augment"),
    "salm": ("step_size", "pgd_steps", "transforms", "release", "steps", "decay_every"),
}
"""Settings of EM that only one of its variants has."""


@dataclass(frozen=True)
class OptimisedConfig(MethodSettings, ABC):
    """What EM, TAP and SEP have in common: a surrogate, U-Net with Adam for segmentation, else ResNet-18 with SGD."""

    eps: Levels | None = budget(None, _EPS, high=0.5)
    region: Region = setting("image", "where noise is allowed, of images with masks", group="noise")
    band: int = setting(1, "radius of the contour band", unit="pixels", low=1, group="noise")
    rounding: bool = setting(False, "the surrogate sees images rounded to grey levels, as they will be saved")
    psnr: float | None = setting(None, _PSNR, unit="dB", above=0, group="noise")
    # What makes a rival's fit as long as UMed's (one pass an epoch) or SALM's: docs/choices.md.
    passes: int | None = setting(
        None, "gradients per image in all, of training and noise, instead of the method's own length", low=1
    )
    flip: bool = setting(True, "random transforms flip, where the method uses them")
    padding: int | None = setting(
        None, "random transforms crop from so much padding; by default an eighth of the side", unit="pixels", low=0
    )
    width: int = setting(64, "channels of the ResNet-18's first stage", low=1)
    batch_size: int = setting(128, "images of one step of the ResNet-18", low=1)
    learning_rate: float = setting(0.1, "learning rate of the ResNet-18", above=0)
    momentum: float = setting(0.9, "momentum of the ResNet-18")
    weight_decay: float = setting(5e-4, "weight decay of the ResNet-18")
    unet_width: int = setting(64, "channels of the U-Net's first level", low=1)
    unet_batch_size: int = setting(16, "images of one step of the U-Net", low=1)
    unet_learning_rate: float = setting(1e-4, "learning rate of the U-Net", above=0)
    seed: int = setting(0, _SEED)

    @property
    def keeps_noise(self) -> bool:
        return True

    def batch(self, task: Task) -> int:
        """Images of one step of the network for ``task``."""
        return self.unet_batch_size if task == "segmentation" else self.batch_size

    def sized(self, count: int, task: Task) -> "OptimisedConfig":
        """This configuration with the lengths that ``passes`` over ``count`` images of ``task`` come to.

        Raises UserError for so few that nothing is left for the noise.
        """
        if self.passes is None:
            return self
        lengths = self.lengths(self.passes, count, task)
        if min(lengths.values()) < 1:
            raise UserError(f"passes {self.passes}: too few for the training that the noise is made on: give more")
        return replace(self, **lengths)

    @abstractmethod
    def lengths(self, passes: int, count: int, task: Task) -> dict[str, Any]:
        """The settings that follow from ``passes``."""


@dataclass(frozen=True)
class ErrorMinimisingConfig(OptimisedConfig):
    """Settings of EM: model and noise in turn, as in UMed's tables, or SALM with k = 100, as in SALM's."""

    name: ClassVar[str] = "em"
    presets: ClassVar[Presets] = {
        "paper": {**SALMConfig.presets["paper"]},
        "gpu": {**SALMConfig.presets["gpu"]},
        "cpu": {**SALMConfig.presets["cpu"], **_NARROW},
        "demo": {
            **SALMConfig.presets["demo"],
            **_NARROW,
            "rounds": 3,
            "model_steps": 25,
            "noise_steps": 3,
            "relative_step": 0.4,
        },
    }

    variant: Literal["auto", "alternating", "salm"] = setting(
        "auto", "EM of UMed's or of SALM's tables; auto: alternating for segmentation or noise per class"
    )
    wise: Wise = setting(
        "sample", "noise of its own for each sample, or the mean of a class's (alternating)", group="noise"
    )
    start: Literal["random", "zero", "stored"] = setting(
        "random", "noise at the start; stored: as the last visit left it, at first random (salm)", group="noise"
    )
    rounds: int = setting(500, "rounds at most; stop_error is meant to end a fit before (alternating)", low=1)
    model_steps: int = setting(10, "steps of the model in a round (alternating)", low=1)
    noise_steps: int = setting(20, "steps of every sample's noise in a round (alternating)", low=1)
    relative_step: float = setting(0.1, "length of a noise step, in units of eps (alternating)", above=0)
    stop_error: float = setting(
        0.01, "ends at this training error, 1 - Dice for segmentation (alternating)", low=0, below=1
    )
    augment: bool = setting(False, "the model trains on flipped and cropped protected images (alternating)")
    step_size: Levels = setting(1.6 / 255, "length of a noise step (salm)", above=0)
    pgd_steps: int = setting(10, "steps of one visit to an image (salm)", low=1)
    transforms: int = setting(5, "random transforms that one gradient is the mean of (salm)", low=1)
    release: Literal["regenerated", "stored"] = setting(
        "regenerated", "noise made at the end with the final source model, or the stored noise (salm)", group="noise"
    )
    steps: int = setting(5000, "steps of the source model (salm)", low=1)
    decay_every: int = setting(2000, "steps after which its learning rate falls to a tenth (salm)", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "salm" and (self.wise == "class" or self.region != "image" or self.rounding):
            raise ValueError("variant salm has noise per sample on the whole image, without rounding")
        if self.release == "stored" and self.start != "stored":
            raise ValueError("release stored needs start stored")

    def for_salm(self, task: Task) -> bool:
        """Whether EM is that of SALM's tables for data of ``task``."""
        plain = task != "segmentation" and self.wise == "sample" and not self.rounding
        return plain if self.variant == "auto" else self.variant == "salm"

    def check_used(self, task: Task) -> None:
        """Raise UserError for a setting that is neither a default nor a preset's, of the variant that is not used."""
        used, other = ("salm", "alternating") if self.for_salm(task) else ("alternating", "salm")
        for name in _OF_VARIANT[other]:
            usual = [getattr(type(self), name), *(sizes[name] for sizes in self.presets.values() if name in sizes)]
            if getattr(self, name) not in usual:
                raise UserError(f"{name} is of variant {other}, and this is variant {used}: leave {name} away")

    def lengths(self, passes: int, count: int, task: Task) -> dict[str, Any]:
        seen = min(self.batch(task), count)  # by one step: a set smaller than a batch is one batch
        if self.for_salm(task):
            steps = int(passes * count / (seen * (self.pgd_steps * self.transforms + 1)))
            return {"steps": steps, "decay_every": max(1, 2 * steps // 5)}
        return {"rounds": int(passes / (self.noise_steps + self.model_steps * seen / count))}


@dataclass(frozen=True)
class TAPConfig(OptimisedConfig):
    """Settings of TAP: training on the clean data, then for each sample the best of several attacks on that model."""

    name: ClassVar[str] = "tap"
    presets: ClassVar[Presets] = {
        "paper": {},
        "gpu": {"restarts": 1, "pgd_steps": 100, "relative_step": 0.1},
        "cpu": {**_NARROW, "restarts": 1},
        "demo": {**_NARROW, "epochs": 10, "restarts": 1, "pgd_steps": 10, "relative_step": 0.25},
    }

    # Its authors call the targeted attack their strongest and the untargeted one brittle.
    goal: Literal["targeted", "untargeted"] = setting(
        "targeted", "towards a wrong target, or away from the true one (SALM's Eq. 7)", group="noise"
    )
    shift: int = setting(1, "the wrong target is the class so much further; of a mask its opposite", group="noise")
    epochs: int = setting(40, "epochs of training on the clean data", low=1)
    augment: bool = setting(True, "that training flips and crops")
    pgd_steps: int = setting(250, "steps of one attack", low=1, group="noise")
    relative_step: float = setting(0.05, "length of a step, in units of eps", above=0, group="noise")
    restarts: int = setting(8, "attacks from a random start on each sample; the best is kept", low=1, group="noise")

    def lengths(self, passes: int, count: int, task: Task) -> dict[str, Any]:
        return {"pgd_steps": (passes - self.epochs) // self.restarts}


@dataclass(frozen=True)
class SEPConfig(OptimisedConfig):
    """Settings of SEP: one attack on checkpoints that are evenly spaced over a training on the clean data."""

    name: ClassVar[str] = "sep"
    presets: ClassVar[Presets] = {
        "paper": {},
        "gpu": {"checkpoints": 15},
        "cpu": {**_NARROW, "checkpoints": 15},
        "demo": {
            **_NARROW,
            "objective": "label",
            "variance": "plain",
            "epochs": 10,
            "checkpoints": 4,
            "pgd_steps": 4,
            "step_size": 2 / 255,
        },
    }

    # The defaults are FA-VR, with which its authors end.
    objective: Literal["label", "feature"] = setting(
        "feature", "the loss towards a wrong target, or the distance to its class's mean feature", group="noise"
    )
    # "reduced": one walk over the checkpoints, each gradient corrected by its difference from the mean at the start.
    variance: Literal["plain", "reduced"] = setting(
        "reduced", "a step along the mean gradient of all checkpoints, or along variance-reduced ones", group="noise"
    )
    shift: int | None = setting(
        None,
        "the wrong target is the class so much further, by default by half of the classes; of a mask its opposite",
        group="noise",
    )
    epochs: int = setting(120, "epochs of training on the clean data", low=1)
    augment: bool = setting(True, "that training flips and crops")
    checkpoints: int = setting(30, "checkpoints of that training that are attacked together", low=1)
    pgd_steps: int = setting(30, "steps of the attack, from zero", low=1, group="noise")
    step_size: Levels = setting(1 / 255, "length of a step", above=0, group="noise")

    def lengths(self, passes: int, count: int, task: Task) -> dict[str, Any]:
        # A variance-reduced step takes the mean over the checkpoints, and two gradients of each on its walk.
        per_step = self.checkpoints * (3 if self.variance == "reduced" else 1)
        return {"pgd_steps": (passes - self.epochs) // per_step}


@dataclass(frozen=True)
class ModelFreeConfig(MethodSettings):
    """What LSP and AR have in common: noise without a model."""

    eps: Levels | None = budget(
        None,
        "root mean square of an image's noise; by default 4/255 for segmentation, 8/255 otherwise",
    )
    clip: bool = setting(False, "no pixel changes by more than eps either", group="noise")
    psnr: float | None = setting(None, _PSNR, unit="dB", above=0, group="noise")
    wise: Wise = setting("sample", "each sample draws noise of its class, or a class shares one", group="noise")
    seed: int = setting(0, _SEED)


@dataclass(frozen=True)
class LSPConfig(ModelFreeConfig):
    """Settings of LSP: flat patches."""

    name: ClassVar[str] = "lsp"

    # By default 8 of 32, 7 of 28, 32 of 224.
    patch: int | None = setting(
        None,
        "side of a patch; by default a quarter of a side up to 32, a seventh of a larger one",
        unit="pixels",
        low=1,
        group="noise",
    )
    separation: float = setting(
        10.0,
        "half the distance of the classes' centres along each axis (class_sep)",
        above=0,
        group="noise",
    )


@dataclass(frozen=True)
class ARConfig(ModelFreeConfig):
    """Settings of AR: autoregressive filters."""

    name: ClassVar[str] = "ar"

    # Other filters' noise diverges, or dies out, across the image.
    growth: float = setting(
        10.0, "filters are rejected that change a pixel's size by more than this factor", above=1, group="noise"
    )
    # The authors' measure, of noise of norm 1 on 32x32 pixels.
    response: float = setting(
        10.0, "filters are rejected whose answer to another class's noise is less", low=0, group="noise"
    )


@dataclass(frozen=True)
class RandomSignsConfig(MethodSettings):
    """Settings of random signs. With SALM's k they are a control of SALM's size."""

    name: ClassVar[str] = "random"

    eps: Levels | None = budget(None, _EPS)
    region: Literal["auto", "image", "contour", "roi", "roi+contour"] = setting(
        "auto", "where noise is allowed; auto: roi+contour (UMed's) of images with masks, else image", group="noise"
    )
    band: int = setting(1, "radius of the contour band", unit="pixels", low=1, group="noise")
    k: float = setting(
        100.0,
        "share of each image's elements, drawn at random, that get noise",
        unit="percent",
        above=0,
        high=100,
        group="noise",
    )
    seed: int = setting(0, _SEED)


@dataclass(frozen=True)
class PatternConfig(RandomSignsConfig):
    """Settings of the controls that are given by a pattern; the defaults are those of random signs."""

    name: ClassVar[str] = "pattern"

    pattern: Literal["signs", "fixed-signs", "checkerboard", "rows", "columns", "constant"] = setting(
        "signs",
        "random signs, new ones for each image or the same for all; a checkerboard; rows or columns in turn; or +1",
        group="noise",
    )
    cell: int = setting(
        1,
        "side of the squares that have one sign, thickness of the rows and columns",
        unit="pixels",
        low=1,
        group="noise",
    )
    scales: int = setting(
        1,
        "equal parts of the noise, of cells of cell, twice and four times as many pixels, ...",
        low=1,
        high=5,
        group="noise",
    )
    colour_cell: int | None = setting(
        None,
        "one more equal part of a checkerboard, rows or columns, of cells of green against red and blue; their side",
        unit="pixels",
        low=1,
        group="noise",
    )
    mask: Literal["own", "another"] = setting(
        "own", "whose mask the region is drawn from; another image's: a null, which must not protect", group="noise"
    )
    bound: Literal["eps", "contrast", "lbp"] = setting(
        "eps",
        "size of the noise: eps, or UMed's bound with that texture (eps on the contour, less inside)",
        group="noise",
    )
    psnr: float | None = setting(None, _PSNR, unit="dB", above=0, group="noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern == "constant" and (self.cell > 1 or self.scales > 1):
            raise ValueError("pattern constant has no cells: leave cell and scales away")
        if self.colour_cell is not None and self.pattern not in REGULAR:
            raise ValueError(f"colour_cell is of {', '.join(REGULAR)}: leave it away")
        if self.mask == "another" and self.region == "image":
            raise ValueError("mask another draws a region, and region image is all of it: take another region or mask")


@dataclass(frozen=True)
class UnprotectedConfig(MethodSettings):
    """Nothing to set but the seed that every run has."""

    name: ClassVar[str] = "none"

    seed: int = setting(0, _SEED)
