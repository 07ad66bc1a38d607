"""The network that EM, TAP and SEP optimise noise against: U-Net for segmentation, ResNet-18 otherwise."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from medveil import keyed
from medveil.baselines.config import OptimisedConfig
from medveil.dataset import Dataset
from medveil.losses import classification_loss, global_mean, segmentation_loss
from medveil.networks import ResNet18, UNet, stem_for
from medveil.optimisers import fused_on
from medveil.runtime import Runtime, State
from medveil.surrogate import input_gradient, seeded
from medveil.transforms import FlipShift, apply_flip_shift, crop_padding, draw_flip_shift


class Surrogate:
    """The network, its optimiser, and its losses; weights depend on (seed, method) alone."""

    def __init__(self, config: OptimisedConfig, data: Dataset, runtime: Runtime, method: str) -> None:
        self.config, self.task, self.runtime = config, data.task, runtime
        segmentation = data.task == "segmentation"
        make: Callable[[], nn.Module]
        if segmentation:
            make = partial(UNet, data.channels, 1, config.unet_width)
        else:
            make = partial(ResNet18, data.channels, data.num_classes, config.width, stem_for(data.size))
        self.net = seeded(make, config.seed, f"{method} surrogate")
        self.net.to(runtime.device).to(memory_format=torch.channels_last)
        self.wrapped = runtime.wrap(self.net)
        self.optimiser: Optimizer
        weights, fused = self.net.parameters(), fused_on(runtime.device)
        if segmentation:
            self.optimiser = Adam(weights, config.unet_learning_rate, **fused)
        else:
            decay = config.weight_decay
            self.optimiser = SGD(weights, config.learning_rate, config.momentum, weight_decay=decay, **fused)

    def losses(self, images: Tensor, targets: Tensor, net: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The loss per sample, float [N], of ``net`` (default: the network itself, not its parallel wrapper)."""
        with self.runtime.autocast():
            logits = (net or self.net)(images)
        return self.loss_of(logits, targets)

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss per sample, float [N], of what the network said."""
        if self.task == "segmentation":
            return segmentation_loss(logits, targets)
        return classification_loss(logits, targets, self.task)

    def gradient(self, objective: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The gradient of the summed ``objective``, at the rounded ``images`` if the configuration says so."""
        return input_gradient(objective, torch.round(images * 255) / 255 if self.config.rounding else images)

    def train(self, images: Tensor, targets: Tensor, global_count: int, rate: float = 1.0) -> Tensor:
        """One step on this rank's slice of a batch of ``global_count``, at ``rate`` times the learning rate."""
        base = self.config.unet_learning_rate if self.task == "segmentation" else self.config.learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = base * rate
        losses = self.losses(images, targets, self.wrapped)
        self.optimiser.zero_grad(set_to_none=True)
        loss = global_mean(losses, global_count, self.runtime.world)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def decay(self, done: int, total: int) -> float:
        """The factor on SGD's rate after ``done`` of ``total`` steps, a tenth at 3/8, 5/8, 7/8 each; 1 for Adam."""
        if self.task == "segmentation":
            return 1.0
        return 0.1 ** sum(8 * done >= part * total for part in (3, 5, 7))

    def state(self) -> State:
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: State) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])


def moved(
    config: OptimisedConfig, purpose: str, step: int, keys: Tensor, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """``images`` [N, C, H, W] flipped and cropped, differentiably, and their masks with them; labels as they are."""
    size = (images.shape[-2], images.shape[-1])
    padding = crop_padding(config.padding, size)
    drawn: FlipShift = draw_flip_shift(config.seed, purpose, step, keys, padding, flip=config.flip)
    masks = targets.ndim == images.ndim
    return apply_flip_shift(images, drawn), apply_flip_shift(targets, drawn) if masks else targets


def random_start(config: OptimisedConfig, purpose: str, step: int, keys: Tensor, x: Tensor, eps: float) -> Tensor:
    """Noise uniform in +-``eps``, with ``x`` + noise kept in [0, 1]."""
    u = keyed.uniform(config.seed, purpose, step, keys, x.shape[1:])
    return (x + eps * (2 * u - 1)).clamp(0, 1) - x


def descended(noise: Tensor, gradient: Tensor, x: Tensor, step: float, eps: float, where: Tensor | None) -> Tensor:
    """One sign step down ``gradient``, kept within +-``eps``, inside ``where`` and with ``x`` + noise in [0, 1]."""
    noise = (noise - step * gradient.sign()).clamp(-eps, eps)
    if where is not None:
        noise = noise * where
    return (x + noise).clamp(0, 1) - x
