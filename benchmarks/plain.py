"""The loops of both papers in plain eager PyTorch, as one would first write them: what the real ones are timed against.

fp32 or autocast, contiguous tensors, batch-norms in eval mode, ``torch.topk``, three convolutions for a
central-difference one, the equations of the clip one by one. They draw the same random numbers and share the
optimiser's step, so that results can be compared before anything is timed.
"""

import copy
from types import MethodType

import torch
from torch import Tensor, nn

from medveil.kernels import CentralDifferenceConv2d
from medveil.kernels.cdc.reference import naive_cdc_conv2d
from medveil.kernels.topk.reference import count
from medveil.losses import classification_loss, segmentation_loss
from medveil.quantise import to_unit
from medveil.runtime import Runtime
from medveil.salm import SALMConfig
from medveil.salm.noise import Visit
from medveil.transforms import apply_flip_shift
from medveil.umed.config import UMedConfig
from medveil.umed.maps import Maps
from medveil.umed.networks import Generators


def contiguous(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(memory_format=torch.contiguous_format)


class PlainSALM:
    """One crafting step of SALM in paper mode from a zero start: PGD against the source model, then its SGD step."""

    def __init__(self, config: SALMConfig, source: nn.Module, runtime: Runtime) -> None:
        self.config, self.source, self.runtime = config, contiguous(source), runtime
        self.optimiser = torch.optim.SGD(
            self.source.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
        )

    def losses(self, images: Tensor, targets: Tensor) -> Tensor:
        with self.runtime.autocast():
            logits = self.source(images)
        return classification_loss(logits, targets, "classification")

    def noise(self, visit: Visit, x: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
        config = self.config
        self.source.eval()
        noise = torch.zeros_like(x)
        for inner in range(config.pgd_steps):
            drawn = visit.transform(keys, inner, config.transforms, x.shape)
            gradient = torch.zeros_like(x)
            for draw in range(config.transforms):
                one = drawn._replace(words=drawn.words[draw :: config.transforms])
                given = noise.clone().requires_grad_(True)
                loss = self.losses(apply_flip_shift(x + given, one), targets).sum()
                gradient += torch.autograd.grad(loss, given)[0] / config.transforms
            size = gradient.abs().flatten(1)
            top = size.topk(count(config.fraction, size.shape[1]), dim=1).indices
            mask = torch.zeros_like(size).scatter_(1, top, 1.0).view_as(x)
            noise = torch.clamp(noise - config.step_size * torch.sign(mask * gradient), -config.eps, config.eps)
            noise = torch.clamp(x + noise, 0, 1) - x
        self.source.train()
        return noise

    def step(self, visit: Visit, images: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
        x = to_unit(images)
        noise = self.noise(visit, x, targets, keys)
        drawn = visit.transform(keys, self.config.pgd_steps, 1, x.shape)
        loss = self.losses(apply_flip_shift(x + noise, drawn), targets).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()


class PlainUMed:
    """One step of UMed's generators against the surrogate; the maps are computed beforehand, as in the real loop."""

    def __init__(self, config: UMedConfig, generators: Generators, surrogate: nn.Module, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.generators, self.surrogate = contiguous(generators), contiguous(surrogate)
        for module in self.generators.modules():
            if isinstance(module, CentralDifferenceConv2d):
                module.forward = MethodType(_naive, module)  # type: ignore[method-assign]
        self.optimiser = torch.optim.Adam(self.generators.parameters(), config.learning_rate)

    def step(self, images: Tensor, masks: Tensor, maps: Maps) -> Tensor:
        x, eps = to_unit(images), self.config.eps
        with self.runtime.autocast():
            contour, texture = self.generators(x)
        edge = maps.contour.to(x.dtype)
        inside = (1 - edge) * masks
        bound = eps * maps.texture * inside
        contour = torch.clamp(contour * edge, -eps, eps)
        texture = torch.minimum(torch.maximum(texture, -bound), bound)
        protected = torch.clamp(x + contour + texture, 0, 1)
        with self.runtime.autocast():
            logits = self.surrogate(protected)
        loss = segmentation_loss(logits, masks, self.config.cross_entropy).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def _naive(self: CentralDifferenceConv2d, x: Tensor) -> Tensor:
    def pair(value: int | tuple[int, int]) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    geometry = pair(self.stride), pair(self.padding), pair(self.dilation)
    return naive_cdc_conv2d(x, self.weight_v, self.weight_c, self.bias, *geometry)
