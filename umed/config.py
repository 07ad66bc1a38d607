"""Every setting and every open point of UMed, with its default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medveil.config import STRICT, Levels


@dataclass(frozen=True)
class UMedConfig:
    """Settings of UMed; the paper's where it states them. Bounds are on the [0, 1] scale.

    Budget
        ``eps``: l-inf bound of the contour noise and ceiling of the texture bound.
    Maps
        ``band``: radius in pixels of the contour band; ``band_side``: which side of the contour it covers.
        ``lbp``: variant of the local binary pattern behind the texture bound.
    Noise
        ``clip``: gradient of the clip, all three give the same bound. ``contour``, ``texture``: the perturbators, or
        "none" to leave one out (the ablations of Table 5); "fixed" bounds the texture noise by ``eps`` alone.
        ``rounding``: the surrogate sees images rounded to grey levels (straight-through gradient), as they will be
        saved.
        ``carrier`` "checkerboard": the generators modulate a checkerboard, which starts at the bound, instead of making
        noise of any frequency; images have least energy there, so that a network finds it soonest.
        ``augment``: the surrogate sees flipped, shifted and scaled protected images.
    Optimisation
        ``epochs`` in cycles of ``generator_epochs`` for the generators and one for the surrogate, generators ``first``.
        ``compile``: ``torch.compile`` of the surrogate while the generators train (not run on a GPU yet).
    """

    eps: Levels = 4 / 255
    band: int = 1
    band_side: Literal["both", "inner", "outer"] = "both"
    lbp: Literal["default", "ror", "uniform"] = "default"
    clip: Literal["hard", "tanh", "straight-through"] = "hard"
    contour: Literal["cdc-unet", "unet", "none"] = "cdc-unet"
    texture: Literal["lbp", "fixed", "none"] = "lbp"
    rounding: bool = False
    augment: bool = False
    carrier: Literal["none", "checkerboard"] = "none"
    cross_entropy: Literal["binary", "softmax"] = "binary"
    epochs: int = 500
    generator_epochs: int = 4
    first: Literal["generators", "surrogate"] = "generators"
    batch_size: int = 16
    learning_rate: float = 1e-4
    surrogate_learning_rate: float = 1e-4
    width: int = 64
    depth: int = 4
    compile: bool = False
    seed: int = 0

    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        for name in ("band", "epochs", "generator_epochs", "batch_size", "width", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("learning_rate", "surrogate_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if not 1 / 255 <= self.eps <= 1:
            raise ValueError("eps must be between 1/255 and 1: a smaller bound does not survive saving as 8-bit images")
        if self.contour == "none" and self.texture == "none":
            raise ValueError("contour and texture cannot both be none: nothing would be protected")

    def generating(self, epoch: int) -> bool:
        """Whether epoch ``epoch`` (from 0) updates the generators (Algorithm 1), else the surrogate."""
        place = epoch % (self.generator_epochs + 1)
        return place < self.generator_epochs if self.first == "generators" else place > 0


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "gpu": {"epochs": 100, "clip": "tanh", "carrier": "checkerboard", "rounding": True},
    # Narrow networks and one epoch of the generators for one of the surrogate: docs/choices.md.
    "cpu": {
        "epochs": 4,
        "width": 8,
        "generator_epochs": 1,
        "first": "surrogate",
        "clip": "tanh",
        "carrier": "checkerboard",
        "rounding": True,
        "surrogate_learning_rate": 1e-3,
    },
}
