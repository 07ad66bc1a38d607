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
    replayed: Replayed | None = None  # ``crafted`` of a visit with the same configuration, loss and purpose

    def start(self, x: Tensor, keys: Tensor) -> Tensor:
        """Noise at the beginning, float [N, C, H, W]: zero, or uniform in +-eps with x + noise kept in [0, 1]."""
        return self._start(x, keys, self._counter(x.device))

    def noise(self, x: Tensor, targets: Tensor, keys: Tensor, start: Tensor | None = None) -> Tensor:
        """The noise after ``pgd_steps`` steps from ``start``, by default its own; all float [N, C, H, W] on the [0, 1]
        scale."""
        given = [] if start is None else [start]
        return (self.replayed or self.crafted)(x, targets, keys, self._counter(x.device), *given)

    def crafted(self, x: Tensor, targets: Tensor, keys: Tensor, step: Tensor, *given: Tensor) -> Tensor:
        """:meth:`noise` as a function of tensors alone; ``step`` int64 [1]. Nothing in it waits for the device."""
        config = self.config
        noise = before = given[0] if given else self._start(x, keys, step)
        support = None
        moves = self._moves(keys, step, x)
        for inner in range(config.pgd_steps):
            gradient = self.gradient(x + noise, targets, moves._replace(words=moves.words[inner]))
            if config.mode == "strict" and inner == 0:
                support = topk_mask(gradient, config.fraction, by=config.by, rank=config.rank)
            before, noise = noise, self.moved(noise, gradient, x, support)
        # Steps to and fro may cancel in every element of a sample; it keeps the noise of the step before.
        some = noise.flatten(1).any(1)
        return torch.where(some.view(-1, 1, 1, 1), noise, before)

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
            return self.loss(apply_flip_shift(images, transform), repeated) / draws

        return input_gradient(loss, protected)

    def transform(self, keys: Tensor, inner: int, draws: int, shape: torch.Size) -> FlipShift:
        """``draws`` transforms for each key at inner step ``inner``, next to each other."""
        config = self.config
        step = self.step * (config.pgd_steps + 1) + inner
        padding = crop_padding(config.padding, (shape[-2], shape[-1]))
        purpose = f"{self.purpose} transform"
        return draw_flip_shift(config.seed, purpose, step, _each(keys, draws), padding, config.flip)

    def _counter(self, device: torch.device) -> Tensor:
        return torch.full((1,), self.step, device=device)

    def _start(self, x: Tensor, keys: Tensor, step: Tensor) -> Tensor:
        config = self.config
        if config.mode == "strict" or config.start == "zero":
            return torch.zeros_like(x)
        words = keyed.words_at(config.seed, f"{self.purpose} start", step, keys, x.shape[1:])[0]
        return torch.clamp(x + config.eps * (2 * keyed.as_uniform(words) - 1), 0, 1) - x

    def _moves(self, keys: Tensor, step: Tensor, x: Tensor) -> FlipShift:
        """The transforms of all inner steps: ``words`` [steps, N J, 3]."""
        config = self.config
        steps = step * (config.pgd_steps + 1) + torch.arange(config.pgd_steps, device=x.device)
        drawn = _each(keys, config.transforms)
        words = keyed.words_at(config.seed, f"{self.purpose} transform", steps, drawn, (3,))
        return FlipShift(words, crop_padding(config.padding, (x.shape[2], x.shape[3])), config.flip)


def _each(keys: Tensor, draws: int) -> Tensor:
    """A key for each draw of a sample and step, as these must differ: [N ``draws``]."""
    return (keys[:, None] + torch.arange(draws, device=keys.device)).flatten()
