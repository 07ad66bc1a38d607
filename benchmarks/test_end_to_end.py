"""Whole steps: a crafting step of SALM, and an epoch of UMed's generators, against the same loops in plain PyTorch; for
SALM's also the time of its convolutions alone, in fp32, which on a CPU are nearly all of it.

On a GPU the sizes are the papers': SALM with a ResNet-18 of width 64 on 28x28x3, batch 128, J = 5, 10 PGD steps; UMed
of width 64 at 224, batch 16. On a CPU, where such a step takes minutes, SALM's batch is 32 and there are 2 PGD steps;
beside it stands a step of width 8 with J = 1 and no transforms; UMed has width 16, 64x64, batch 8.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import convolutions
from benchmarks.plain import PlainSALM, PlainUMed
from medveil import keyed
from medveil.dataset import ArrayDataset, Task
from medveil.folding import folded
from medveil.quantise import to_unit
from medveil.runtime import SingleProcess
from medveil.salm import SALM
from medveil.salm.noise import Visit
from medveil.salm.protector import _Trainer as SALMTrainer
from medveil.umed import UMed, maps
from medveil.umed.protector import _Trainer as UMedTrainer


def images_like(count: int, side: int, task: Task) -> ArrayDataset:
    """Smooth random images, three channels; discs as masks."""
    noise = torch.rand(count, 3, side, side)
    images = (torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 255).to(torch.uint8)
    targets = torch.arange(count) % 9
    if task == "segmentation":
        distance = (torch.arange(side) - side / 2) ** 2
        disc = (distance[:, None] + distance < (side / 4) ** 2).to(torch.uint8)
        targets = disc.expand(count, 1, side, side).contiguous()
    return ArrayDataset(images, targets, [f"image {i}" for i in range(count)], task, 1 if task == "segmentation" else 9)


def agreement(found: Tensor, expected: Tensor) -> float:
    """The share of the elements that either moved and that both moved alike."""
    moved = (found != 0) | (expected != 0)
    return float(((found - expected).abs() < 1e-6)[moved].float().mean())


SALM_PROVIDERS = ["plain", "medveil", "convolutions alone", "plain bf16", "medveil bf16", "graph", "compile"]


@pytest.mark.parametrize("provider", SALM_PROVIDERS)
@pytest.mark.parametrize("width", [64, 8])
def test_salm_step(measure: Any, device: torch.device, provider: str, width: int) -> None:
    cuda = device.type == "cuda"
    if cuda and width != 64:
        pytest.skip("a CPU's size")
    if provider == "graph" and not cuda:
        pytest.skip("CUDA graphs need a GPU")
    if provider == "compile" and not measure.with_compile:
        pytest.skip("--with-compile")
    if provider == "convolutions alone" and cuda:
        pytest.skip("a CPU's limit: a GPU's loops wait for more than these")
    batch, draws, steps = (128, 5, 10) if cuda else (32, 5, 2) if width == 64 else (128, 1, 10)
    bf16 = "bf16" in provider or (cuda and provider in ("graph", "compile"))
    runtime = SingleProcess(device, torch.bfloat16 if bf16 else torch.float32)
    data = images_like(batch, 28, "classification")
    options: dict[str, Any] = {"batch_size": batch, "transforms": draws, "width": width, "start": "zero"}
    options |= {} if width == 64 else {"flip": False, "padding": 0}
    salm = SALM(**options, pgd_steps=steps, graph=provider == "graph", compile=provider == "compile")
    salm.runtime = runtime
    salm._create("classification", 3, 9, (28, 28))
    images, targets, ids = data.read(range(batch))
    images, targets, keys = images.to(device), targets.to(device), keyed.keys_of(ids, device)
    plain = PlainSALM(salm.config, salm.source, runtime)
    trainer = SALMTrainer(salm, data)
    # The gate: one PGD step moves the same elements the same way (sign and top-k make whole steps of rounding).
    one = SALM(**options, pgd_steps=1)
    one.runtime = runtime
    one._create("classification", 3, 9, (28, 28))
    visit, x = one.visit("salm fit", 0), to_unit(images)
    first = PlainSALM(one.config, one.source, runtime).noise(visit, x, targets, keys)
    alike = agreement(visit.noise(x, targets, keys, torch.zeros_like(x)), first)
    assert alike > (0.3 if bf16 else 0.98), f"only {alike:.1%} of the moved elements agree"
    measure.benchmark.extra_info |= {"images": batch, "agreement": alike}
    drawing = Visit(salm.config, plain.losses, "salm fit", 0)
    real: Callable[[], Tensor] = lambda: trainer.step(range(batch), next(trainer.samples([range(batch)])), 0)  # noqa: E731
    run = (lambda: plain.step(drawing, images, targets, keys)) if "plain" in provider else real
    if provider == "convolutions alone":
        net = folded(salm.source)
        inner = convolutions.alone(net, x.repeat_interleave(draws, 0), parameters=False)
        outer = convolutions.alone(net, x, parameters=True)
        run = lambda: [inner() for _ in range(steps)] + [outer()]  # noqa: E731
    group = f"salm step {batch}x3x28x28, J = {draws}, {steps} PGD steps, ResNet-18 of width {width} {device.type}"
    slow = width == 64 and not cuda
    measure(provider, run, group, rounds=3 if slow else 15, warmups=0 if slow else 2)


@pytest.mark.parametrize("provider", ["plain", "medveil", "plain bf16", "medveil bf16", "compile"])
def test_umed_epoch(measure: Any, device: torch.device, provider: str) -> None:
    cuda = device.type == "cuda"
    if provider == "compile" and not measure.with_compile:
        pytest.skip("--with-compile")
    batch, side, width, count = (16, 224, 64, 64) if cuda else (8, 64, 16, 16)
    bf16 = "bf16" in provider or (cuda and provider == "compile")
    runtime = SingleProcess(device, torch.bfloat16 if bf16 else torch.float32)
    data = images_like(count, side, "segmentation")
    batches = [range(first, first + batch) for first in range(0, count, batch)]

    def made() -> UMed:
        umed = UMed(batch_size=batch, width=width, epochs=5, texture="lbp", compile=provider == "compile")
        umed._create(3, device)
        return umed

    def plain_step(plain: PlainUMed, some: range, known: maps.Maps) -> Tensor:
        images, masks, _ = data.read(some)
        return plain.step(images.to(device), masks.to(device), known)

    umed, rival = made(), made()
    plain = PlainUMed(umed.config, rival.generators, rival.surrogate, runtime)
    trainer = UMedTrainer(umed, data, runtime)
    known = []
    for some in batches:
        images, masks, _ = data.read(some)
        known.append(maps.compute(umed.config, to_unit(images.to(device)), masks.to(device)))
    tolerance = 0.02 if bf16 else 1e-3
    expected = plain_step(plain, batches[0], known[0])
    (first,) = trainer.samples(batches[:1])
    torch.testing.assert_close(trainer.step(batches[0], first, 0), expected, rtol=tolerance, atol=tolerance)

    def epoch() -> None:
        if "plain" in provider:
            for some, maps_ in zip(batches, known, strict=True):
                plain_step(plain, some, maps_)
        else:
            for some, samples in zip(batches, trainer.samples(batches), strict=True):
                trainer.step(some, samples, 0)

    measure.benchmark.extra_info["images"] = count
    group = f"umed generator epoch {count}x3x{side}x{side}, batch {batch}, width {width} {device.type}"
    measure(provider, epoch, group, rounds=15 if cuda else 3)
