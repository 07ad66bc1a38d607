"""Every setting of SALM, and an option for each place where the paper's text, equations and algorithm disagree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from medveil.config import STRICT, Levels


@dataclass(frozen=True)
class SALMConfig:
    """Settings of SALM; the paper's where it states them. Bounds are on the [0, 1] scale.

    Budget
        ``k``: percent of each sample's elements that one step may move. ``eps``: l-inf bound (rho_u).
    Sparsity
        ``mode`` "paper" chooses the elements anew at each step, so that with a random start most pixels change;
        "strict" starts at zero and keeps one choice per visit, so that at most floor(k% of the elements) differ in the
        saved bytes. ``rank`` "abs" is the text's top-k of |g|, "signed" Eq. 5's of g. ``by`` counts elements or pixels
        (over all channels). ``literal_percentile`` reads "g >= k-th percentile" literally and keeps 100 - k percent.
    Noise
        ``start`` at each visit: "random" in +-eps, "zero", or "stored" (kept per sample between visits; with
        ``pgd_steps`` = 1 this is Algorithm 1 as printed). ``release``: noise made at the end with the final source
        model, or the "stored" noise.
    Transforms
        ``transforms``: J samples of a flip and a crop from ``padding`` pixels (default: an eighth of the side).
    Source model
        ResNet-18 of ``width``, trained for ``steps`` of SGD, decayed by 0.1 every ``decay_every`` steps.
    Speed (neither has been run on a GPU yet: docs/speed.md)
        ``graph``: PGD steps of full batches are replayed as a CUDA graph (no effect on CPU). ``compile``:
        ``torch.compile`` of the source model for the PGD steps; it changes the last digits.
    """

    mode: Literal["paper", "strict"] = "paper"
    k: float = 10.0
    eps: Levels = 8 / 255
    step_size: Levels = 1.6 / 255
    pgd_steps: int = 10
    transforms: int = 5
    flip: bool = True
    padding: int | None = None
    rank: Literal["abs", "signed"] = "abs"
    by: Literal["element", "pixel"] = "element"
    literal_percentile: bool = False
    start: Literal["random", "zero", "stored"] = "random"
    release: Literal["regenerated", "stored"] = "regenerated"
    steps: int = 5000
    decay_every: int = 2000
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    width: int = 64
    graph: bool = False
    compile: bool = False
    seed: int = 0

    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        for name in ("pgd_steps", "transforms", "steps", "decay_every", "batch_size", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 0 < self.k <= 100:
            raise ValueError("k must be above 0 and at most 100 percent")
        if not 1 / 255 <= self.eps <= 1:
            raise ValueError("eps must be between 1/255 and 1: a smaller bound does not survive saving as 8-bit images")
        if not self.step_size > 0 or not self.learning_rate > 0:
            raise ValueError("step_size and learning_rate must be above 0")
        if self.padding is not None and self.padding < 0:
            raise ValueError("padding must be at least 0")
        if self.mode == "strict" and self.start == "stored":
            raise ValueError("mode strict starts every visit at zero: start stored goes with mode paper")
        if self.release == "stored" and self.start != "stored":
            raise ValueError("release stored needs start stored")

    @property
    def fraction(self) -> float:
        """The share of a sample's elements that one step may move."""
        return (100 - self.k if self.literal_percentile else self.k) / 100

    def padding_for(self, size: tuple[int, int]) -> int:
        """Pixels of padding before the random crop: 4 of 32, 3 of 28."""
        return min(size) // 8 if self.padding is None else self.padding


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "gpu": {},
    # A narrow source model, J = 1 and no transform, for an exploiter that does not augment either. With noise that
    # starts at zero a short fit protects better than with a random start: docs/choices.md.
    "cpu": {
        "width": 8,
        "transforms": 1,
        "flip": False,
        "padding": 0,
        "start": "zero",
        "steps": 200,
        "decay_every": 80,
    },
}
