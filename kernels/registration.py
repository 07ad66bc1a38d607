"""One operator name on every device: what runs where."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch


def register(name: str, cpu: Callable[..., Any], fake: Callable[..., Any], cuda: str) -> None:
    """``medveil::name`` runs ``cpu`` on the CPU, ``fake`` for shapes alone, and on CUDA the function of that name in
    the module ``cuda``, which is imported at the first call: it needs Triton."""
    operator = f"medveil::{name}"

    def on_cuda(*arguments: Any) -> Any:
        return getattr(import_module(cuda), name)(*arguments)

    torch.library.impl(operator, "CPU", cpu)
    torch.library.impl(operator, "CUDA", on_cuda)
    torch.library.register_fake(operator, fake)
