"""Controls: noise that nothing was optimised for. A learned method has shown something only where it beats these.

Signs on the whole image, or on another image's mask, say nothing of the label: nulls, which must not protect. Noise on
the image's own mask tells the label by its place: an ablation of where the noise lies, and it may protect.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.classes import check_region, default_eps, region_of
from medveil.baselines.config import REGULAR, PatternConfig, RandomSignsConfig
from medveil.baselines.masks import OtherMasks
from medveil.baselines.matching import dithered, scale_to
from medveil.cells import doubled, opposed, regular, spread
from medveil.config import build, plain
from medveil.dataset import Batch, Dataset
from medveil.errors import UserError
from medveil.kernels import topk_mask
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import quantise, to_unit, whole_levels
from medveil.runtime import Runtime, SingleProcess, State
from medveil.sparsity import check_selects
from medveil.task import Task
from medveil.umed import maps
from medveil.umed.config import UMedConfig

_ONE = ["every image"]
"""What a pattern that all images share is drawn by."""


class Pattern:
    """Signs times a bound, on a region: a function of the image, its mask, its id and the seed."""

    name: ClassVar[str] = PatternConfig.name
    Config: ClassVar[type[MethodSettings]] = PatternConfig

    def __init__(self, **options: Any) -> None:
        self.config: Any = build(self.Config, options, self.name)
        self.settings = PatternConfig(**plain(self.config))
        self.task: Task = "classification"
        self.scale = 1.0
        self.others: OtherMasks | None = None

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "Pattern":
        """Note the task, keep the masks if others' are wanted, and find the scale that gives the wanted PSNR.

        Raises UserError when a setting does not fit the task, k selects nothing, or no scale gives that PSNR.
        """
        settings, runtime = self.settings, runtime or SingleProcess()
        self.task = data.task
        check_region("image" if settings.region == "auto" else settings.region, data.task)
        if data.task != "segmentation" and (settings.mask == "another" or settings.bound != "eps"):
            raise UserError(f"mask another and UMed's bound need masks, and {data.task} data has none: leave them away")
        check_selects(settings.k, data.channels * math.prod(data.size))
        if settings.mask == "another":
            self.others = OtherMasks.of(data, settings.seed)
        if settings.psnr is not None:
            self.scale = scale_to(settings.psnr, data, runtime, self._released)
        return self

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected float32 images [N, C, H, W] in [0, 1] for uint8 ``images``."""
        return self._protected(Batch(images, targets, list(ids)), self.scale)

    def budget(self) -> Budget:
        k, eps = self.settings.k, self._eps()
        matched = self.settings.psnr is not None
        levels = math.ceil(self.scale * 255 * eps - 1e-6) if matched else whole_levels(eps)
        return Budget(levels=levels, changed=k / 100 if k < 100 else None)

    def support(self, targets: Tensor) -> Tensor | None:
        return self._region(targets) if self.settings.mask == "own" else None

    def state_dict(self) -> State:
        return {"task": self.task, "scale": self.scale, "others": self.others and self.others.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.task, self.scale = state["task"], state["scale"]
        self.others = None if state["others"] is None else OtherMasks(**state["others"])

    def _released(self, batch: Batch, scale: float) -> Tensor:
        return quantise(self._protected(batch, scale), batch.images, None)

    def _protected(self, batch: Batch, scale: float) -> Tensor:
        images, targets, ids = batch
        settings, shape = self.settings, images.shape[1:]
        keys = keyed.keys_of(ids, images.device)
        masks = targets if self.others is None else self.others.of_ids(ids, targets)
        signs = self._signs(keys, shape)
        size = self._bound(images, masks) * signs.abs()
        if settings.k < 100:
            chances = keyed.uniform(settings.seed, "random support", 0, keys, shape)
            size = size * topk_mask(chances, settings.k / 100)
        if settings.psnr is not None:
            own = keys if settings.pattern == "signs" else keyed.keys_of(_ONE, images.device)
            chance = keyed.uniform(settings.seed, "pattern rounding", 0, own, shape)
            size = dithered(scale * 255 * size, chance) / 255
        return torch.clamp(to_unit(images) + size * signs.sign(), 0, 1)

    def _signs(self, keys: Tensor, shape: Sequence[int]) -> Tensor:
        """From -1 to +1, float32, of a shape that broadcasts to [N, C, H, W]: the mean of each scale's pattern."""
        settings = self.settings
        if settings.pattern == "constant":
            return torch.ones(1, 1, 1, 1, device=keys.device)
        scales = [self._of_cells(cell, keys, shape) for cell in doubled(settings.cell, settings.scales)]
        if settings.colour_cell is not None:
            colour = opposed(shape[0], keys.device)[None, :, None, None]
            scales.append(self._of_cells(settings.colour_cell, keys, shape) * colour)
        return torch.stack(torch.broadcast_tensors(*scales)).mean(0)

    def _of_cells(self, cell: int, keys: Tensor, shape: Sequence[int]) -> Tensor:
        """+1 and -1, float32, one sign for each cell, of a shape that broadcasts to [N, C, H, W]."""
        settings = self.settings
        height, width = shape[-2:]
        if settings.pattern in REGULAR:
            return regular(settings.pattern, height, width, cell, keys.device)[None, None]
        own = keys if settings.pattern == "signs" else keyed.keys_of(_ONE, keys.device)
        purpose = "random signs" if cell == 1 else f"random signs of cells of {cell}"
        drawn = keyed.words(settings.seed, purpose, 0, own, (*shape[:-2], -(-height // cell), -(-width // cell)))
        return spread(((drawn & 1) * 2 - 1).to(torch.float32), cell, height, width)

    def _bound(self, images: Tensor, masks: Tensor) -> Tensor:
        """The largest change, on the [0, 1] scale, float32 of a shape that broadcasts to the images."""
        region = self._region(masks)
        bound = torch.full((1, 1, 1, 1), self._eps(), device=images.device)
        if self.settings.bound != "eps":
            # As UMed has it: eps on the contour, eps times the texture in the rest of the mask.
            umed = UMedConfig(band=self.settings.band, texture=self.settings.bound)
            contour, texture = maps.compute(umed, to_unit(images), masks)
            bound = bound * torch.where(contour, 1.0, texture)
        return bound if region is None else bound * region

    def _region(self, masks: Tensor) -> Tensor | None:
        region = self.settings.region
        if region == "auto":
            region = "roi+contour" if self.task == "segmentation" else "image"
        return region_of(region, masks, self.settings.band)

    def _eps(self) -> float:
        return default_eps(self.task) if self.settings.eps is None else self.settings.eps


class RandomSigns(Pattern):
    """:class:`Pattern` with new signs for each image, at the bound: on masks the ablation of UMed's place, not a null.

    Its place alone tells a network where the lesion is. The nulls are ``region`` "image", and ``pattern`` with the mask
    of another image.
    """

    name: ClassVar[str] = RandomSignsConfig.name
    Config: ClassVar[type[MethodSettings]] = RandomSignsConfig
