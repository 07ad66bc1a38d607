"""bf16 on a CPU that has no instructions for it."""

from functools import cache

import torch

from medveil.launch.errors import say
from medveil.launch.running.machine import Precision


def say_if_slow(precision: Precision, device: torch.device) -> None:
    """One line, once in a process, where bf16 would take many times as long as fp32: on a CPU without AVX-512."""
    if precision == "bf16" and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        said()


@cache
def said() -> None:
    # Measured on an EPYC without AVX-512: a U-Net's training step 10 times, a single convolution 20 times as long.
    say(
        "this CPU has no instructions for bf16, which takes it ten times as long as fp32: stop, and give "
        "--precision fp32 (precision: fp32 in a sweep)"
    )
