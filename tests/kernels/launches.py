"""What the launchers would launch, without a GPU: they are called on tensors of the "meta" device, which have shapes
and no memory, and each launch is recorded instead of made. From it the kernel is compiled ahead of time."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
}


@dataclass(frozen=True)
class Launch:
    """One kernel with all that its compiler is told of the arguments."""

    kernel: Any
    grid: tuple[int, ...]
    signature: dict[str, str]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    @property
    def programs(self) -> int:
        return int(torch.Size(self.grid).numel())

    def constant(self, name: str) -> Any:
        """The value of a compile-time argument, or of an option such as ``num_warps``."""
        if name in self.options:
            return self.options[name]
        return self.constants[[p.name for p in self.kernel.params].index(name),]

    def compiled(self, architecture: int) -> Any:
        source = ASTSource(self.kernel, self.signature, self.constants, self.attributes)
        return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=self.options)

    def fingerprint(self) -> str:
        """Of what the compiled code depends on, but for Triton's version and the architecture: the functions' text
        (wherever it stands in its file) and what is known of the arguments."""
        constants = {index[0]: str(value) for index, value in self.constants.items()}
        known = f"{self.signature} {constants} {self.attributes} {sorted(self.options.items())}"
        return hashlib.sha256("\n".join([*sorted(_texts(self.kernel, set())), known]).encode()).hexdigest()[:16]


def _texts(function: Any, seen: set[str]) -> set[str]:
    """The text of a compiled function, of all that it calls, and of the constants that it names."""
    if function.src not in seen:
        seen.add(function.src)
        for name in function.fn.__code__.co_names:
            used = function.fn.__globals__.get(name)
            if isinstance(used, JITFunction):
                _texts(used, seen)
            elif isinstance(used, tl.constexpr):
                seen.add(f"{name} = {used.value}")
    return seen


def _launch(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], named: dict[str, Any]) -> Launch:
    names = [parameter.name for parameter in kernel.params]
    values = dict(zip(names, arguments, strict=False)) | named
    launch = Launch(kernel, tuple(grid), {}, {}, {}, {n: v for n, v in named.items() if n not in names})
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, values[parameter.name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            launch.signature[name], launch.constants[index,] = "constexpr", value
        elif isinstance(value, Tensor):
            launch.signature[name] = f"*{NAMES[value.dtype]}"
            if value.storage_offset() * value.element_size() % 16 == 0:
                launch.attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            launch.signature[name] = parameter.annotation_type or "fp32"
        else:
            launch.signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                launch.attributes[index,] = [["tt.divisibility", 16]]
    return launch


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Launches made within are recorded in the list instead."""
    found: list[Launch] = []

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        found.append(_launch(kernel, grid, arguments, named))

    made, JITFunction.run = JITFunction.run, run
    try:
        yield found
    finally:
        JITFunction.run = made


def recorded(call: Callable[[], Any]) -> list[Launch]:
    with recording() as found:
        call()
    return found


def meta(*shape: int, dtype: torch.dtype = torch.float32, last: bool = False) -> Tensor:
    """A tensor of ``shape`` without memory, in channels_last if ``last``."""
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)
