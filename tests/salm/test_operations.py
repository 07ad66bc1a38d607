"""How much one PGD step of SALM has the device do beside its convolutions, on tensors without memory."""

import torch

from medveil import keyed
from medveil.runtime import SingleProcess
from medveil.salm import SALM
from tests.operations import Operations

CONVOLUTIONS = ("convolution", "convolution_backward", "medveil::conv_relu")


def visited(steps):
    """The operations of a visit of ``steps`` steps, and how many of them are convolutions."""
    salm = SALM(pgd_steps=steps, width=8, start="zero")
    salm.runtime = SingleProcess("meta")
    salm._create("classification", 3, 9, (28, 28))
    x, targets = torch.empty(4, 3, 28, 28, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    keys = keyed.keys_of([str(i) for i in range(4)], "meta")
    visit = salm.visit("salm fit", 0)
    start = visit.start(x, keys)
    with Operations() as operations:
        visit.noise(x, targets, keys, start)
    return operations.found


def test_a_step_is_at_most_a_hundred_operations_outside_its_convolutions(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which knows no such device
    step = visited(3) - visited(2)
    convolutions = sum(step[name] for name in CONVOLUTIONS)
    print(step)
    assert convolutions == 40
    assert step.total() - convolutions <= 100
    assert step["medveil::topk_masked_step"] == 1 and step["medveil::flip_shift"] == 1
    assert visited(3)["medveil::philox_words"] == 1  # all steps' draws
