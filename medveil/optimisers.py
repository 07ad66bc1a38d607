"""What every optimiser is told of the device that it works on."""

from typing import Any

import torch


def fused_on(device: torch.device) -> dict[str, Any]:
    """Options of ``torch.optim.Adam`` and ``SGD``: one kernel for all weights on CUDA."""
    # Not on the CPU: there the fused optimisers (torch 2.15) mix up the elements of a weight whose gradient has other
    # strides than itself.
    return {"fused": True} if device.type == "cuda" else {}
