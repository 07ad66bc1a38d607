"""A function of tensors recorded once as a CUDA graph and replayed, so that its kernels start without the host."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UPS = 3


class Replayed:
    """``function`` (tensors of one device -> one tensor), replayed where it can be and called where it cannot.

    The first call records it, and so does a call with more samples (dimension 0 of the first argument) than were
    recorded. Calls with the recorded shapes, dtypes and layouts are replayed; others, such as the last partial batch,
    and tensors that are not on CUDA are computed eagerly. ``function`` must not wait for the device, and may read other
    tensors only if they are changed in place, never replaced.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.inputs: list[Tensor] = []
        self.replay: Callable[[], None] | None = None
        self.output: Tensor | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if not recordable(tensors):
            return self.function(*tensors)
        if not self.inputs or len(tensors[0]) > len(self.inputs[0]):
            self.inputs = [tensor.detach().clone() for tensor in tensors]
            self.replay, self.output = record(self.function, self.inputs)
        if [_form(tensor) for tensor in tensors] != [_form(tensor) for tensor in self.inputs]:
            return self.function(*tensors)
        for kept, given in zip(self.inputs, tensors, strict=True):
            kept.copy_(given)
        assert self.replay is not None and self.output is not None
        self.replay()
        return self.output.clone()  # the next replay writes the same memory


def recordable(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.is_cuda for tensor in tensors)


def record(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What replays ``function(*inputs)`` on the present contents of ``inputs``, and the tensor it writes."""
    device = inputs[0].device
    # Kernels are compiled, libraries set up and their workspaces allocated on a stream of its own first: none of that
    # can be recorded.
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            function(*inputs)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on allocating pinned memory meanwhile, to read batches ahead.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = function(*inputs)
    return graph.replay, output


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype, tuple[int, ...]]:
    return tensor.shape, tensor.dtype, tensor.stride()
