"""A recorder of CUDA graphs for tests without a GPU: what Python did while it recorded is not done again."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx


def record(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Callable[[], object], Tensor]:
    """In place of :func:`medveil.graphs.record`: the operators of ``function`` on the present contents of ``inputs``.

    As in a CUDA graph, numbers and choices that come from Python are those of the recording, other tensors are read
    where they lay.
    """
    graph = make_fx(function)(*inputs)
    output = graph(*inputs)
    return lambda: output.copy_(graph(*inputs)), output
