"""What is known of a launch before its tensors are, so that the host does little at the launch itself."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """Shape, strides and dtype of a tensor that is yet to be."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        return cls(tensor.shape, tensor.stride(), tensor.dtype)

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=device)


class Prepared:
    """A kernel with its grid and all its arguments but the tensors, which are the first.

    At every launch Triton looks at each argument to find the compiled kernel, which takes the host tens of
    microseconds. Here the first launch finds it for all: dtypes, the device, and which addresses are multiples of 16
    bytes must be those of the first launch every time.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int], numbers: Sequence[int], named: dict[str, Any]) -> None:
        self.kernel, self.grid = kernel, (*grid, 1)
        self.numbers, self.named = tuple(numbers), named
        self._launch: Callable[..., None] | None = None
        self._rest: tuple[Any, ...] = ()

    def __call__(self, *tensors: Tensor) -> None:
        if self._launch is not None:
            self._launch(*tensors, *self._rest)
        elif all(self.grid):
            compiled = self.kernel[self.grid](*tensors, *self.numbers, **self.named)
            if compiled is not None:  # the interpreter compiles nothing
                names = self.kernel.arg_names[len(tensors) + len(self.numbers) :]
                self._rest = (*self.numbers, *(self.named[name] for name in names))
                self._launch = compiled[self.grid]
