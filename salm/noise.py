"""One visit of SALM to a batch: the inner loop that makes noise against a fixed source model (Eqs. 5 and 6)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import topk_mask, topk_masked_step
from medveil import keyed
from medveil.surrogate import input_gradient
from medveil.transforms import FlipShift, apply_flip_shift, draw_flip_shift
from salm.config import SALMConfig

Loss = Callable[[Tensor, Tensor], Tensor]
"""(transformed images [N, C, H, W] in [0, 1], targets) -> loss per sample [N] under the source model."""


@dataclass(frozen=True)
class Visit:
    """What makes the noise of a visit: a function of (configuration, seed, purpose, step, sample keys, model)."""

    config: SALMConfig
    loss: Loss
    purpose: str
    step: int

    def start(self, x: Tensor, keys: Tensor) -> Tensor:
        """Noise at the beginning, float [N, C, H, W]: zero, or uniform in +-eps with x + noise kept in [0, 1]."""
        config = self.config
        if config.mode == "strict" or config.start == "zero":
            return torch.zeros_like(x)
        u = keyed.uniform(config.seed, f"{self.purpose} start", self.step, keys, x.shape[1:])
        return torch.clamp(x + config.eps * (2 * u - 1), 0, 1) - x

    def noise(self, x: Tensor, targets: Tensor, keys: Tensor, start: Tensor) -> Tensor:
        """The noise after ``pgd_steps`` steps from ``start``; all float [N, C, H, W] on the [0, 1] scale."""
        config = self.config
        noise, before, support = start, start, None
        for inner in range(config.pgd_steps):
            gradient = self.gradient(x + noise, targets, keys, inner)
            if config.mode == "strict" and support is None:
                support = topk_mask(gradient, config.fraction, by=config.by, rank=config.rank)
            before = noise
            noise = topk_masked_step(
                noise,
                gradient,
                x,
                config.fraction,
                config.step_size,
                config.eps,
                support=support,
                by=config.by,
                rank=config.rank,
            )
        # Steps to and fro may cancel in every element of a sample; it keeps the noise of the step before.
        some = noise.flatten(1).any(1)
        return torch.where(some.view(-1, 1, 1, 1), noise, before)

    def gradient(self, protected: Tensor, targets: Tensor, keys: Tensor, inner: int) -> Tensor:
        """The mean gradient over J sampled transforms, per sample, float [N, C, H, W]; the J go as one batch."""
        draws = self.config.transforms
        transform = self.transform(keys, inner, draws, protected.shape)
        repeated = targets.repeat_interleave(draws, 0)

        def loss(images: Tensor) -> Tensor:
            return self.loss(apply_flip_shift(images.repeat_interleave(draws, 0), transform), repeated) / draws

        return input_gradient(loss, protected)

    def transform(self, keys: Tensor, inner: int, draws: int, shape: torch.Size) -> FlipShift:
        """``draws`` transforms for each key at inner step ``inner``, next to each other."""
        config = self.config
        size = (shape[-2], shape[-1])
        # One key per draw: the draws of one sample and step must differ.
        drawn = (keys[:, None] + torch.arange(draws, device=keys.device)).flatten()
        step = self.step * (config.pgd_steps + 1) + inner
        return draw_flip_shift(
            config.seed, f"{self.purpose} transform", step, drawn, size, config.padding_for(size), config.flip
        )
