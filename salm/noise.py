"""One visit of SALM to a batch: the inner loop that makes noise against a fixed source model (Eqs. 5 and 6)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medveil import keyed
from medveil.graphs import Replayed
from medveil.kernels import topk_mask, topk_masked_step
from medveil.salm.config import SALMConfig
from medveil.surrogate import input_gradient
from medveil.transforms import FlipShift, apply_flip_shift, crop_padding, draw_flip_shift

Loss = Callable[[Tensor, Tensor], Tensor]
"""(transformed images [N, C, H, W] in [0, 1], targets) -> loss per sample [N] under the source model."""


@dataclass(frozen=True)
class Visit:
    """What makes the noise of a visit: a function of (configuration, seed, purpose, step, sample keys, model)."""

    config: SALMConfig
    loss: Loss
    purpose: str
    step: int
    replayed: Replayed | None = None  # ``advance`` of a visit with the same configuration and loss

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
        noise, before, given = start, start, [x, targets]
        advance = self.replayed or self.advance
        for inner in range(config.pgd_steps):
            transform = self.transform(keys, inner, config.transforms, x.shape)
            if config.mode == "strict" and inner == 0:
                gradient = self.gradient(x + noise, targets, transform)
                support = topk_mask(gradient, config.fraction, by=config.by, rank=config.rank)
                before, noise = noise, self.moved(noise, gradient, x, support)
                given.append(support)
            else:
                before, noise = noise, advance(noise, *transform, *given)
        # Steps to and fro may cancel in every element of a sample; it keeps the noise of the step before.
        some = noise.flatten(1).any(1)
        return torch.where(some.view(-1, 1, 1, 1), noise, before)

    def advance(self, noise: Tensor, *given: Tensor) -> Tensor:
        """One PGD step, a function of tensors alone: the four of a transform, x, targets, and strict mode's support."""
        transform, (x, targets, *support) = FlipShift(*given[:4]), given[4:]
        gradient = self.gradient(x + noise, targets, transform)
        return self.moved(noise, gradient, x, support[0] if support else None)

    def moved(self, noise: Tensor, gradient: Tensor, x: Tensor, support: Tensor | None) -> Tensor:
        """``noise`` after one masked sign step (Eq. 6)."""
        config = self.config
        bounds = config.step_size, config.eps
        return topk_masked_step(
            noise, gradient, x, config.fraction, *bounds, support=support, by=config.by, rank=config.rank
        )

    def gradient(self, protected: Tensor, targets: Tensor, transform: FlipShift) -> Tensor:
        """The mean gradient over J sampled transforms, per sample, float [N, C, H, W]; the J go as one batch."""
        draws = self.config.transforms
        repeated = targets.repeat_interleave(draws, 0)

        def loss(images: Tensor) -> Tensor:
            each = images[:, None].expand(-1, draws, -1, -1, -1).flatten(0, 1)
            return self.loss(apply_flip_shift(each, transform), repeated) / draws

        return input_gradient(loss, protected)

    def transform(self, keys: Tensor, inner: int, draws: int, shape: torch.Size) -> FlipShift:
        """``draws`` transforms for each key at inner step ``inner``, next to each other."""
        config = self.config
        size = (shape[-2], shape[-1])
        # One key per draw: the draws of one sample and step must differ.
        drawn = (keys[:, None] + torch.arange(draws, device=keys.device)).flatten()
        step = self.step * (config.pgd_steps + 1) + inner
        return draw_flip_shift(
            config.seed, f"{self.purpose} transform", step, drawn, size, crop_padding(config.padding, size), config.flip
        )
