"""How noise is learned: it and young surrogates descend the same loss, so that one backward pass serves both."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from medveil import keyed
from medveil.dataset import Dataset, Task
from medveil.feed import Feed
from medveil.kernels import topk_mask
from medveil.losses import classification_loss, global_mean, segmentation_loss
from medveil.optimisers import fused_on
from medveil.quantise import to_unit
from medveil.runtime import Runtime, State, trainable_batches
from medveil.umed import maps
from medveil.veil import spectrum, swapping
from medveil.veil.config import VeilConfig
from medveil.veil.noise import Classwise, Learned
from medveil.veil.pipeline import pipeline
from medveil.veil.place import Place, Shape
from medveil.veil.young import Young, network, smallest


class Training:
    """The fit of noise that is learned, one global batch a step."""

    def __init__(self, noise: nn.Module, place: Place, data: Dataset, runtime: Runtime) -> None:
        self.noise, self.place, self.config, self.data, self.runtime = noise, place, place.config, data, runtime
        self.wrapped = runtime.wrap(noise)
        generator = isinstance(noise, Learned) and noise.net is not None
        self.optimiser = Adam(noise.parameters(), self.config.rate(generator), **fused_on(runtime.device))
        self.feed = Feed.of_protector(data, runtime.device)
        self.young = Young(self.config, lambda: network(self.config, place.shape), runtime)
        self.maps = place.cache(len(data), runtime.device)
        self.gradients: Tensor | None = None

    @property
    def total(self) -> int:
        return self.config.steps

    def visits(self, first: int) -> Iterator[swapping.Visit]:
        """What every step from ``first`` on is to be given."""
        config, shape = self.config, self.place.shape
        batches = (batch_at(len(self.data), config, shape, "veil order", step) for step in range(first, self.total))
        return swapping.visits(self.feed, self.runtime, batches, config.swap, config.seed, first)

    def step(self, step: int, visit: swapping.Visit) -> Tensor:
        """The mean loss of the global batch of ``step``, detached."""
        config = self.config
        x, targets, keys = to_unit(visit.samples.images), visit.samples.targets, visit.samples.keys
        known = None if self.maps is None else self.maps.get(visit.mine, x, targets)
        noise = self._noise(x, targets, known, keys, step)
        seen = swapping.shown(x, noise, visit)
        if through_pipeline(config, step, config.strength(step)):
            seen = pipeline(seen, config.seed, step, config.strength(step), keys)
        surrogate, optimiser = self.young.at(step)
        with self.runtime.autocast():
            logits = surrogate(seen.contiguous(memory_format=torch.channels_last))
        loss = global_mean(losses(logits, targets, self.data.task), len(visit.batch), self.runtime.world)
        for one in (self.optimiser, optimiser):
            one.zero_grad(set_to_none=True)
        loss.backward()
        self._choose_support(step)
        for one in (self.optimiser, optimiser):
            one.step()
        return loss.detach()

    def _noise(self, x: Tensor, targets: Tensor, known: maps.Maps | None, keys: Tensor, step: int) -> Tensor:
        """The noise of ``x``, float [N, C, H, W], or as much of it as the surrogate is to see at ``step``."""
        config = self.config
        with self.runtime.autocast():
            parts = self.wrapped(x, targets)
        if config.alone:
            parts = parts * _some(keyed.uniform(config.seed, "veil alone", step, keys, (2,)), config)
        bound = self.place.bound(x, targets, known)
        noise = torch.clamp(x + bound * parts.mean(1), 0, 1) - x
        if config.masking:
            u = keyed.uniform(config.seed, "veil masking", step, keys, (3,))
            noise = spectrum.masked(noise, *spectrum.bands(u, config.masking))
        return noise

    def _choose_support(self, step: int) -> None:
        """SALM's sparsity: after the first lives, a class's noise stays where its gradients have been largest."""
        noise, config = self.noise, self.config
        if not isinstance(noise, Classwise) or config.k == 100 or step >= config.restart:
            return
        assert noise.picture.grad is not None
        gradient = noise.picture.grad.detach()
        self.gradients = gradient.clone() if self.gradients is None else self.gradients + gradient
        if step == min(config.restart, config.steps) - 1:
            noise.support.copy_(topk_mask(noise.whole(self.gradients), config.k / 100))

    def checkpoint(self, done: int) -> State:
        return {
            "noise": self.noise.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "young": self.young.state_dict(),
            "gradients": self.gradients,
            "done": done,
        }

    def resume(self, state: State) -> int:
        """Continue from a checkpoint; returns the steps done."""
        self.noise.load_state_dict(state["noise"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.young.load_state_dict(state["young"])
        self.gradients = None if state["gradients"] is None else state["gradients"].to(self.runtime.device)
        done: int = state["done"]
        return done


def batch_at(count: int, config: VeilConfig, shape: Shape, purpose: str, step: int) -> Sequence[int]:
    """The global batch of ``step``, when ``count`` samples of ``shape`` are walked through in a new order each epoch.

    Raises UserError when they are too few and too small to train on.
    """
    pixels = smallest(config, shape)
    epoch, place = divmod(step, len(trainable_batches(range(count), config.batch_size, pixels)))
    return _batches_of(count, config.batch_size, pixels, config.seed, purpose, epoch)[place]


@lru_cache(maxsize=2)
def _batches_of(count: int, size: int, pixels: int, seed: int, purpose: str, epoch: int) -> list[Sequence[int]]:
    # Kept while an epoch lasts: of 100,000 samples an order takes as long to draw as a GPU takes for a step.
    return trainable_batches(keyed.permutation(count, seed, purpose, epoch), size, pixels)


def losses(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Of each sample, [N]."""
    if task == "segmentation":
        return segmentation_loss(logits, targets)
    return classification_loss(logits, targets, task)


def through_pipeline(config: VeilConfig, step: int, strength: float) -> bool:
    """Whether what is seen at ``step`` goes through the thief's pipeline."""
    if config.pipeline == 0 or strength == 0:
        return False
    u = keyed.uniform(config.seed, "veil through pipeline", step, torch.zeros(1, dtype=torch.int64))
    return bool(u.item() < config.pipeline)


def _some(u: Tensor, config: VeilConfig) -> Tensor:
    """1 for the scales that are shown and 0 for the others, [N, scales, 1, 1, 1], of uniform draws ``u`` [N, 2]."""
    chosen = F.one_hot((u[:, 1] * config.scales).long(), config.scales)
    visible = torch.where(u[:, :1] < config.alone, chosen, 1)
    return visible[:, :, None, None, None]
