"""UMed: Algorithm 1 of the paper, and the noise of its fitted generators."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Adam

from medveil import keyed
from medveil.config import build
from medveil.dataset import Dataset
from medveil.feed import Feed, Samples
from medveil.kernels import lbp_adaptive_clip
from medveil.losses import global_mean, segmentation_loss
from medveil.method import MethodSettings
from medveil.networks import UNet, deepest
from medveil.optimisers import fused_on
from medveil.protector import Budget
from medveil.quantise import to_unit, whole_levels
from medveil.runtime import Runtime, SingleProcess, State, local_slice, trainable_batches
from medveil.surrogate import frozen, seeded
from medveil.transforms import apply_affine, draw_affine
from medveil.umed import maps
from medveil.umed.config import UMedConfig
from medveil.umed.networks import Generators


class UMed:
    """Contour- and texture-aware noise from two generators, trained against one surrogate U-Net."""

    name: ClassVar[str] = UMedConfig.name
    Config: ClassVar[type[MethodSettings]] = UMedConfig

    def __init__(self, **options: Any) -> None:
        self.config: UMedConfig = build(UMedConfig, options, "umed")

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "UMed":
        """Train the generators on ``data``. Raises ``ValueError`` when it is not a segmentation set, and UserError for
        a setting of a texture that is not used and when images are too few and too small to train on."""
        if data.task not in self.config.tasks:
            raise ValueError(f"UMed protects segmentation sets, not {data.task}")
        config = self.config
        config.check_used()
        runtime = runtime or SingleProcess()
        pixels = deepest(data.size, config.depth)
        per_epoch = len(trainable_batches(range(len(data)), config.batch_size, pixels))
        self._create(data.channels, runtime.device)
        trainer = _Trainer(self, data, runtime)
        state = runtime.restore()
        done = 0 if state is None else trainer.resume(state)
        total = config.epochs * per_epoch
        while done < total:
            epoch, place = divmod(done, per_epoch)
            if place == 0 and config.surrogate == "anew" and not config.generating(epoch):
                trainer.renew(epoch)
            order = keyed.permutation(len(data), config.seed, "umed order", epoch)
            rest = trainable_batches(order, config.batch_size, pixels)[place:]
            for batch, samples in zip(rest, trainer.samples(rest), strict=True):
                loss = trainer.step(batch, samples, epoch)
                done += 1
                runtime.step(done, total, partial(trainer.checkpoint, done), loss=loss)
        return self

    @torch.no_grad()
    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected images, float32 [N, C, H, W] in [0, 1].

        ``images``: uint8 [N, C, H, W]; ``targets``: their masks, {0, 1} [N, 1, H, W].
        """
        x = as_read(images)
        generators = self.generators.eval()
        contour, texture = generators(x)
        return protect(self.config, x, contour, texture, targets, maps.compute(self.config, x, targets))

    def budget(self) -> Budget:
        return Budget(levels=whole_levels(self.config.eps))

    def support(self, targets: Tensor) -> Tensor:
        return maps.support(self.config, targets)

    def state_dict(self) -> State:
        return {
            "channels": self.channels,
            "generators": self.generators.state_dict(),
            "surrogate": self.surrogate.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        if not hasattr(self, "generators"):
            self._create(state["channels"], torch.device("cpu"))
        self.generators.load_state_dict(state["generators"])
        self.surrogate.load_state_dict(state["surrogate"])

    def new_surrogate(self, purpose: str) -> UNet:
        """A surrogate with weights that depend on (seed, ``purpose``) alone."""
        config = self.config
        classes = 1 if config.cross_entropy == "binary" else 2
        return seeded(lambda: UNet(self.channels, classes, config.width, config.depth), config.seed, purpose)

    def _create(self, channels: int, device: torch.device) -> None:
        config = self.config
        self.channels = channels
        self.generators = seeded(lambda: Generators(config, channels), config.seed, "umed generators")
        self.surrogate = self.new_surrogate("umed surrogate")
        for module in (self.generators, self.surrogate):
            module.to(device).to(memory_format=torch.channels_last)


def as_read(images: Tensor) -> Tensor:
    """``images`` uint8 as float32 in [0, 1], on CUDA in channels_last: so networks and operators pass each other what
    lies alike. On the CPU results must stay what they are, to the last digit."""
    x = to_unit(images)
    return x.contiguous(memory_format=torch.channels_last) if x.is_cuda else x


def protect(config: UMedConfig, x: Tensor, contour: Tensor, texture: Tensor, masks: Tensor, known: maps.Maps) -> Tensor:
    """Eqs. 4 to 6: both noises bounded on their regions, added to ``x``, kept in [0, 1]."""
    return lbp_adaptive_clip(
        x, contour, texture, masks, config.eps, contour=known.contour, texture=known.texture, clip=config.clip
    )


class _Trainer:
    """One step of Algorithm 1 on a global batch, for the generators or for the surrogate."""

    def __init__(self, umed: UMed, data: Dataset, runtime: Runtime) -> None:
        self.umed, self.config, self.data, self.runtime = umed, umed.config, data, runtime
        self.generators, self.surrogate, config = umed.generators, umed.surrogate, umed.config
        # Parallel training goes through the wrapped modules; a frozen network is called directly.
        self.wrapped_generators, self.wrapped_surrogate, self.fixed_generators, self.fixed_surrogate = (
            torch.compile(module) if config.compile else module
            for module in (runtime.wrap(self.generators), runtime.wrap(self.surrogate), self.generators, self.surrogate)
        )
        device = runtime.device
        self.generator_optimiser = Adam(self.generators.parameters(), config.learning_rate, **fused_on(device))
        self.surrogate_optimiser = Adam(self.surrogate.parameters(), config.surrogate_learning_rate, **fused_on(device))
        self.feed = Feed.of_protector(data, device)
        self.maps = maps.MapCache(config, len(data), data.size, device=device)

    def samples(self, groups: Sequence[Sequence[int]]) -> Iterator[Samples]:
        """This rank's samples of each of these global batches, on the device."""
        return self.feed.batches([local_slice(batch, self.runtime) for batch in groups])

    def step(self, batch: Sequence[int], samples: Samples, epoch: int) -> Tensor:
        """One step on the global ``batch``, of which ``samples`` are this rank's."""
        x, targets = as_read(samples.images), samples.targets
        known = self.maps.get(local_slice(batch, self.runtime), x, targets)
        keys = samples.keys if self.config.augment else None
        generating = self.config.generating(epoch)
        optimiser = self.generator_optimiser if generating else self.surrogate_optimiser
        if generating:
            with frozen(self.surrogate, evaluation=False):
                protected = self._protect(self.wrapped_generators, x, targets, known)
                losses = self._losses(self.fixed_surrogate, protected, targets, keys, epoch)
                return self._descend(optimiser, losses, len(batch))
        else:
            with torch.no_grad():
                protected = self._protect(self.fixed_generators, x, targets, known)
            losses = self._losses(self.wrapped_surrogate, protected, targets, keys, epoch)
            return self._descend(optimiser, losses, len(batch))

    def _protect(self, generators: Callable[..., Any], x: Tensor, targets: Tensor, known: maps.Maps) -> Tensor:
        with self.runtime.autocast():
            contour, texture = generators(x)
        return protect(self.config, x, contour, texture, targets, known)

    def _losses(
        self, surrogate: Callable[[Tensor], Tensor], protected: Tensor, targets: Tensor, keys: Tensor | None, epoch: int
    ) -> Tensor:
        if self.config.rounding:
            protected = protected + (torch.round(protected * 255) / 255 - protected).detach()
        if keys is not None:
            theta = draw_affine(self.config.seed, "umed augment", epoch, keys)
            protected = apply_affine(protected, theta)
            targets = apply_affine(targets.to(protected.dtype), theta, nearest=True)
        with self.runtime.autocast():
            logits = surrogate(protected)
        return segmentation_loss(logits, targets, self.config.cross_entropy)

    def _descend(self, optimiser: Adam, losses: Tensor, global_count: int) -> Tensor:
        """One step; returns this rank's part of the batch's loss."""
        loss = global_mean(losses, global_count, self.runtime.world)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    def renew(self, epoch: int) -> None:
        """Draw the surrogate's weights anew, and forget what its optimiser knew of the old ones."""
        drawn = self.umed.new_surrogate(f"umed surrogate {epoch}")
        self.surrogate.load_state_dict(drawn.state_dict())
        self.surrogate_optimiser.state.clear()

    def checkpoint(self, done: int) -> State:
        return {
            "protector": self.umed.state_dict(),
            "generator_optimiser": self.generator_optimiser.state_dict(),
            "surrogate_optimiser": self.surrogate_optimiser.state_dict(),
            "done": done,
        }

    def resume(self, state: State) -> int:
        """Continue from a checkpoint; returns the steps done."""
        self.umed.load_state_dict(state["protector"])
        self.generator_optimiser.load_state_dict(state["generator_optimiser"])
        self.surrogate_optimiser.load_state_dict(state["surrogate_optimiser"])
        done: int = state["done"]
        return done
