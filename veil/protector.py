"""Veil: noise fitted against young surrogates that see half of it on the wrong image."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from medveil import keyed
from medveil.config import build
from medveil.dataset import Dataset
from medveil.losses import global_mean, segmentation_loss
from medveil.method import MethodSettings
from medveil.protector import Budget
from medveil.quantise import to_unit, whole_levels
from medveil.runtime import Runtime, SingleProcess, State, share
from medveil.surrogate import seeded
from medveil.umed import maps
from medveil.veil import spectrum, swapping
from medveil.veil.config import VeilConfig
from medveil.veil.jpeg import rounded
from medveil.veil.noise import Noise
from medveil.veil.pipeline import pipeline
from medveil.veil.young import Young


class Veil:
    """Noise where UMed puts it, that tells a network which has just begun to learn where the mask is."""

    name: ClassVar[str] = VeilConfig.name
    Config: ClassVar[type[MethodSettings]] = VeilConfig

    def __init__(self, **options: Any) -> None:
        self.config: VeilConfig = build(VeilConfig, options, "veil")

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "Veil":
        """Fit the noise to ``data``. Raises ``ValueError`` when it is not a segmentation set."""
        if data.task not in self.config.tasks:
            raise ValueError(f"Veil protects segmentation sets, not {data.task}")
        config, runtime = self.config, runtime or SingleProcess()
        self._create(data.channels, runtime.device)
        trainer = _Trainer(self, data, runtime)
        state = runtime.restore()
        done = 0 if state is None else trainer.resume(state)
        per_epoch = -(-len(data) // config.batch_size)
        while done < config.steps:
            epoch, place = divmod(done, per_epoch)
            order = keyed.permutation(len(data), config.seed, "veil order", epoch)
            for first in range(place * config.batch_size, len(data), config.batch_size):
                loss = trainer.step(order[first : first + config.batch_size], done)
                done += 1
                runtime.step(done, config.steps, partial(trainer.checkpoint, done), loss=loss)
                if done == config.steps:
                    break
        return self

    @torch.no_grad()
    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected images, float32 [N, C, H, W] in [0, 1].

        ``images``: uint8 [N, C, H, W]; ``targets``: their masks, {0, 1} [N, 1, H, W].
        """
        x = to_unit(images)
        bound = bounds(self.config, maps.compute(self.config.place, x, targets), targets)
        return torch.clamp(x + bound * self.noise.eval()(x).mean(1), 0, 1)

    def budget(self) -> Budget:
        return Budget(levels=whole_levels(self.config.eps))

    def support(self, targets: Tensor) -> Tensor:
        return maps.support(self.config.place, targets)

    def state_dict(self) -> State:
        return {"channels": self.channels, "noise": self.noise.state_dict()}

    def load_state_dict(self, state: State) -> None:
        if not hasattr(self, "noise"):
            self._create(state["channels"], torch.device("cpu"))
        self.noise.load_state_dict(state["noise"])

    def _create(self, channels: int, device: torch.device) -> None:
        self.channels = channels
        self.noise = seeded(lambda: Noise(self.config, channels), self.config.seed, "veil noise")
        self.noise.to(device).to(memory_format=torch.channels_last)


def bounds(config: VeilConfig, known: maps.Maps, masks: Tensor) -> Tensor:
    """The largest change of each pixel, float [N, 1, H, W]: eps on the contour band, eps times the texture inside."""
    return config.eps * torch.where(known.contour, 1.0, known.texture * masks)


class _Trainer:
    """One step on a global batch: noise and surrogate descend the same loss, so that one backward pass serves both."""

    def __init__(self, veil: Veil, data: Dataset, runtime: Runtime) -> None:
        self.veil, self.config, self.data, self.runtime = veil, veil.config, data, runtime
        self.wrapped = runtime.wrap(veil.noise)
        self.optimiser = Adam(veil.noise.parameters(), self.config.learning_rate)
        self.young = Young(self.config, data.channels, runtime)
        self.maps = maps.MapCache(self.config.place, len(data), data.size)

    def step(self, batch: Sequence[int], step: int) -> Tensor:
        config, device = self.config, self.runtime.device
        mine, others = share(batch, self.runtime), share(swapping.partners(batch), self.runtime)
        images, targets, ids = self.data.read(mine)
        x, targets = to_unit(images.to(device, non_blocking=True)), targets.to(device, non_blocking=True)
        keys = keyed.keys_of(ids, device)
        noise = self._noise(x, targets, self.maps.get(mine, x, targets), keys, step)
        swapped = swapping.drawn(config.swap, config.seed, step, ids)
        seen = torch.clamp(swapping.hosts(x, others, swapped, self.data) + noise, 0, 1)
        seen = rounded(seen * 255) / 255
        if self._through_pipeline(step):
            seen = pipeline(seen, config.seed, step, config.strength(step), keys)
        surrogate, optimiser = self.young.at(step)
        with self.runtime.autocast():
            logits = surrogate(seen.contiguous(memory_format=torch.channels_last))
        loss = global_mean(segmentation_loss(logits, targets), len(batch), self.runtime.world)
        for one in (self.optimiser, optimiser):
            one.zero_grad(set_to_none=True)
        loss.backward()
        for one in (self.optimiser, optimiser):
            one.step()
        return loss.detach()

    def _noise(self, x: Tensor, targets: Tensor, known: maps.Maps, keys: Tensor, step: int) -> Tensor:
        """The noise of ``x``, float [N, C, H, W], or as much of it as the surrogate is to see at ``step``."""
        config = self.config
        with self.runtime.autocast():
            parts = self.wrapped(x)
        if config.alone:
            parts = parts * _some(keyed.uniform(config.seed, "veil alone", step, keys, (2,)), config)
        bound = bounds(config, known, targets)
        noise = torch.clamp(x + bound * parts.mean(1), 0, 1) - x
        if config.masking:
            u = keyed.uniform(config.seed, "veil masking", step, keys, (3,))
            noise = spectrum.masked(noise, *spectrum.bands(u, config.masking))
        return noise

    def _through_pipeline(self, step: int) -> bool:
        config = self.config
        if config.pipeline == 0 or config.strength(step) == 0:
            return False
        u = keyed.uniform(config.seed, "veil through pipeline", step, torch.zeros(1, dtype=torch.int64))
        return u.item() < config.pipeline

    def checkpoint(self, done: int) -> State:
        return {
            "protector": self.veil.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "young": self.young.state_dict(),
            "done": done,
        }

    def resume(self, state: State) -> int:
        """Continue from a checkpoint; returns the steps done."""
        self.veil.load_state_dict(state["protector"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.young.load_state_dict(state["young"])
        done: int = state["done"]
        return done


def _some(u: Tensor, config: VeilConfig) -> Tensor:
    """1 for the scales that are shown and 0 for the others, [N, scales, 1, 1, 1], of uniform draws ``u`` [N, 2]."""
    chosen = F.one_hot((u[:, 1] * config.scales).long(), config.scales)
    shown = torch.where(u[:, :1] < config.alone, chosen, 1)
    return shown[:, :, None, None, None]
