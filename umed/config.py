"""Every setting and every open point of UMed, with its default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medveil.config import Levels, budget, setting
from medveil.errors import UserError
from medveil.method import MethodSettings, Presets
from medveil.task import Task

_FAST: Mapping[str, Any] = {"learning_rate": 1e-3, "surrogate_learning_rate": 1e-3}
"""Ten times the paper's rates, for fits of fewer epochs than its 500."""


@dataclass(frozen=True)
class UMedConfig(MethodSettings):
    """Settings of UMed; the paper's where it states them. Bounds are on the [0, 1] scale."""

    name: ClassVar[str] = "umed"
    tasks: ClassVar[frozenset[Task]] = frozenset({"segmentation"})
    presets: ClassVar[Presets] = {
        "paper": {},
        # The generators' loss needs some 4,000 steps to fall: docs/choices.md.
        "gpu": {"epochs": 200, "rounding": True, **_FAST},
        "cpu": {"epochs": 200, "rounding": True, "width": 8, **_FAST},
        "demo": {"epochs": 5, "rounding": True, "width": 8, **_FAST},
    }

    eps: Levels = budget(4 / 255, "bound of the contour noise, and ceiling of the texture noise's")
    band: int = setting(1, "radius of the contour band", unit="pixels", low=1, group="noise")
    band_side: Literal["both", "inner", "outer"] = setting(
        "both", "side of the contour that the band covers", group="noise"
    )
    lbp: Literal["default", "ror", "uniform"] = setting(
        "default", "variant of the local binary pattern, for texture lbp", group="noise"
    )
    noise_level: int = setting(
        6, "difference beyond which a neighbour counts, for texture contrast", unit="grey levels", low=0, group="noise"
    )
    clip: Literal["hard", "tanh", "straight-through"] = setting(
        "hard", "gradient of the clip; all three give the same bound", group="noise"
    )
    contour: Literal["cdc-unet", "unet", "none"] = setting(
        "cdc-unet", "generator of the contour noise; none leaves that noise out (Table 5)", group="noise"
    )
    # Every LBP variant gives flat areas a high code, where the paper asks for a low bound: docs/choices.md.
    texture: Literal["contrast", "lbp", "fixed", "none"] = setting(
        "contrast",
        "bound of the texture noise: eps times the share of the 8 neighbours that differ, or times the local binary "
        "pattern's code, or eps alone; none leaves it out",
        group="noise",
    )
    output: Literal["eps", "raw"] = setting(
        "eps", "the generators' outputs are in units of eps, or taken as they are (Eqs. 4 and 5)", group="noise"
    )
    rounding: bool = setting(False, "the surrogate sees images rounded to grey levels, as they will be saved")
    augment: bool = setting(False, "the surrogate sees flipped, shifted and scaled protected images")
    cross_entropy: Literal["binary", "softmax"] = setting("binary", "form of the surrogate's cross-entropy")
    epochs: int = setting(500, "length of the fit, generators' and surrogate's epochs together", low=1)
    generator_epochs: int = setting(4, "epochs of the generators for each one of the surrogate", low=1)
    first: Literal["generators", "surrogate"] = setting("generators", "which of them begins a cycle")
    surrogate: Literal["kept", "anew"] = setting("kept", "its weights, before each of its epochs after the first")
    batch_size: int = setting(16, "images of one step", low=1)
    learning_rate: float = setting(1e-4, "learning rate of the generators (Adam)", above=0)
    surrogate_learning_rate: float = setting(1e-4, "learning rate of the surrogate (Adam)", above=0)
    width: int = setting(64, "channels of the first level of generators and surrogate", low=1)
    depth: int = setting(4, "levels of the generators and the surrogate below the first", low=1, high=8)
    compile: bool = setting(
        False, "torch.compile of both generators and the surrogate; it changes the last digits (not run on a GPU yet)"
    )
    seed: int = setting(0, "seed of every random draw")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contour == "none" and self.texture == "none":
            raise ValueError("contour and texture cannot both be none: nothing would be protected")

    def check_used(self) -> None:
        """Raise UserError for a setting of a texture that is not used."""
        for name, texture in (("lbp", "lbp"), ("noise_level", "contrast")):
            if self.texture != texture and getattr(self, name) != getattr(type(self), name):
                raise UserError(f"{name} is of texture {texture}, and texture is {self.texture}: leave {name} away")

    def generating(self, epoch: int) -> bool:
        """Whether epoch ``epoch`` (from 0) updates the generators (Algorithm 1), else the surrogate."""
        place = epoch % (self.generator_epochs + 1)
        return place < self.generator_epochs if self.first == "generators" else place > 0
