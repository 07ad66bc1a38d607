"""What a fit costs on many processes: ``python -m benchmarks.scaling`` prints the tables of docs/scaling.md.

Sizes are counted on the models themselves, operations on torch's meta device. Times are of SALM's steps on this
machine's CPU: 1, 2 and 4 processes with the same number of images each (weak scaling), gloo between them.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medveil.launch.data import open_data
from medveil.launch.running.processes import joined, run_local
from medveil.launch.running.runtime import running
from medveil.networks import ResNet18, UNet
from medveil.runtime import batches
from medveil.salm import SALM
from medveil.salm.protector import _Trainer
from medveil.umed.config import UMedConfig
from medveil.umed.networks import Generators


@dataclass(frozen=True)
class Weak:
    """One weak-scaling measurement: ``images`` per process."""

    folder: Path
    images: int
    steps: int


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def forward_operations(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications and additions of one forward pass over one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.to("meta").eval()(torch.empty(1, *shape, device="meta"))
    return int(counter.get_total_flops())


def measure(weak: Weak, meeting: tuple[str, int, int]) -> None:
    """Seconds per step of SALM, the median over ``steps``, written by the first process."""
    torch.set_num_threads(1)
    with joined("cpu", meeting) as processes:
        source = open_data(f"phantom:cls:{weak.images * processes.world}:28")
        with running(processes, None, "fp32", "scaling", quiet=True) as runtime:
            salm = SALM(width=16, transforms=1, pgd_steps=10, batch_size=weak.images * processes.world, seed=0)
            salm.runtime = runtime
            salm._create(source.data.task, source.data.channels, source.data.num_classes, source.data.size)
            trainer = _Trainer(salm, source.data)
            (batch,) = batches(range(len(source.data)), weak.images * processes.world)
            seconds = []
            for step in range(weak.steps + 2):
                processes.barrier()
                begun = time.perf_counter()
                trainer.step(batch, next(trainer.samples([batch])), step)
                processes.barrier()
                seconds.append(time.perf_counter() - begun)
        if processes.rank == 0:
            steps = sorted(seconds[2:])
            (weak.folder / f"{processes.world}.json").write_text(json.dumps(steps[len(steps) // 2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32, help="per process")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    print("| fit | parameters | all-reduced per step | checkpoint | operations per image and step |")
    print("| --- | --- | --- | --- | --- |")
    for name, count, states, operations in _models():
        row = f"| {name} | {count / 1e6:.1f} M | {4 * count / 1e6:.0f} MB | {4 * states / 1e6:.0f} MB |"
        print(f"{row} {operations / 1e12:.3f} T |")
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    print("| processes | images per step | seconds per step | efficiency |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        alone = None
        for world in (1, 2, 4):
            run_local(measure, Weak(Path(name), args.images, args.steps), world)
            seconds = json.loads((Path(name) / f"{world}.json").read_text())
            alone = alone or seconds
            print(f"| {world} | {world * args.images} | {seconds:.3f} | {alone / seconds:.0%} |")


def _models() -> list[tuple[str, int, int, int]]:
    """Name, parameters trained at a step, numbers in a checkpoint, operations per image and step."""
    resnet = ResNet18(3, 9, 64, "large")
    salm = parameters(resnet)
    forward = forward_operations(resnet, (3, 224, 224))
    # 10 steps of PGD over 5 transforms, each a pass forward and one backward to the image; then one whole step.
    rows = [("SALM, 224x224", salm, 2 * salm, (10 * 5 * 2 + 3) * forward)]
    # A central-difference convolution is one convolution with folded weights: it counts as a plain one.
    generators, surrogate, plain = Generators(UMedConfig(), 3), UNet(3, 1, 64, 4), UNet(3, 3, 64, 4)
    count = parameters(generators)
    every = count + parameters(surrogate)
    shape = (3, 512, 512)
    passes = 2 * forward_operations(plain, shape) + forward_operations(surrogate, shape)
    # Adam keeps two numbers more for each parameter; a step of the generators goes through all three networks.
    rows.append(("UMed, 512x512", count, 3 * every, 3 * passes))
    return rows


if __name__ == "__main__":
    main()
