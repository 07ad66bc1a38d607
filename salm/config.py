"""Every setting of SALM, and an option for each place where the paper's text, equations and algorithm disagree."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from medveil.config import Levels, budget, setting
from medveil.method import MethodSettings, Presets
from medveil.sparsity import check_selects
from medveil.task import Task


@dataclass(frozen=True)
class SALMConfig(MethodSettings):
    """Settings of SALM; the paper's where it states them. Bounds are on the [0, 1] scale."""

    name: ClassVar[str] = "salm"
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "multilabel"})
    presets: ClassVar[Presets] = {
        "paper": {},
        "gpu": {},
        "cpu": {"width": 8, "steps": 2000, "decay_every": 800},
        # J = 1 and no transform, for an exploiter that does not augment either.
        "demo": {
            "width": 8,
            "transforms": 1,
            "flip": False,
            "padding": 0,
            "steps": 60,
            "decay_every": 40,
            "pgd_steps": 4,
            "batch_size": 64,
        },
    }

    # With a random start and elements chosen anew most pixels change in the end, in mode "paper".
    mode: Literal["paper", "strict"] = setting(
        "paper",
        "elements chosen anew at each step, or once a visit from a zero start, so that at most k% of the saved bytes "
        "change",
        group="noise",
    )
    k: float = setting(
        10.0, "share of each image's elements that one step may move", unit="percent", above=0, high=100, group="noise"
    )
    eps: Levels = budget(8 / 255, "largest change of a pixel (rho_u)")
    step_size: Levels = setting(1.6 / 255, "length of one step", above=0, group="noise")
    pgd_steps: int = setting(10, "steps of one visit to an image", low=1, group="noise")
    transforms: int = setting(5, "random transforms that one gradient is the mean of (J)", low=1, group="noise")
    flip: bool = setting(True, "transforms flip the image", group="noise")
    padding: int | None = setting(
        None,
        "crop of the transforms; by default an eighth of the side",
        unit="pixels",
        low=0,
        group="noise",
    )
    rank: Literal["abs", "signed"] = setting(
        "abs", "elements are ranked by |g|, as the text says, or by g (Eq. 5)", group="noise"
    )
    by: Literal["element", "pixel"] = setting(
        "element", "what k counts: elements, or pixels over all channels", group="noise"
    )
    literal_percentile: bool = setting(
        False, "reads 'g >= k-th percentile' literally: keeps 100 - k percent", group="noise"
    )
    # "stored" with one step a visit is Algorithm 1 as printed.
    start: Literal["random", "zero", "stored"] = setting(
        "random", "noise at the start of a visit; stored: as the last visit left it, at first random", group="noise"
    )
    release: Literal["regenerated", "stored"] = setting(
        "regenerated", "noise made at the end with the final source model, or the stored noise", group="noise"
    )
    steps: int = setting(5000, "steps of the source model (ResNet-18, SGD)", low=1)
    decay_every: int = setting(2000, "steps after which its learning rate falls to a tenth", low=1)
    batch_size: int = setting(128, "images of one step", low=1)
    learning_rate: float = setting(0.1, "learning rate of the source model", above=0)
    momentum: float = setting(0.9, "momentum of the source model", low=0)
    weight_decay: float = setting(5e-4, "weight decay of the source model", low=0)
    width: int = setting(64, "channels of the source model's first stage", low=1)
    graph: bool = setting(
        True, "on CUDA a visit to a full batch is one graph, recorded once and replayed (not run on a GPU yet)"
    )
    compile: bool = setting(False, "torch.compile of the source model for the steps; it changes the last digits")
    seed: int = setting(0, "seed of every random draw")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "strict" and self.start == "stored":
            raise ValueError("mode strict starts every visit at zero: start stored goes with mode paper")
        if self.release == "stored" and self.start != "stored":
            raise ValueError("release stored needs start stored")

    @property
    def keeps_noise(self) -> bool:
        return self.start == "stored"

    def check_size(self, channels: int, size: tuple[int, int]) -> None:
        """Raise UserError where k selects nothing of images of ``channels`` and ``size``, height and width."""
        count = math.prod(size) * (channels if self.by == "element" else 1)
        check_selects(self.k, count, self.by, self.literal_percentile)

    @property
    def fraction(self) -> float:
        """The share of a sample's elements that one step may move."""
        return (100 - self.k if self.literal_percentile else self.k) / 100
