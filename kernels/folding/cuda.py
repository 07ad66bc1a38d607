"""Launcher of the Triton kernel that folds batch-norms into convolutions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from medveil.kernels.folding.kernels import fold_norms_kernel

BLOCK = {"BLOCK": 512, "num_warps": 4}
_OUT = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class Layer(NamedTuple):
    """A convolution's weight [O, ...] and bias, the batch-norm behind it, and the folded weight and bias: fp32 but for
    the last two."""

    weight: Tensor
    bias: Tensor | None
    mean: Tensor
    variance: Tensor
    gain: Tensor | None
    shift: Tensor | None
    folded: Tensor
    folded_bias: Tensor


def takes(layers: Sequence[tuple[Layer, float]]) -> bool:
    """Whether one launch can do all of ``layers``: fp32, one dtype of results, each pair of weights laid out alike with
    the output channels outermost."""
    return all(
        layer.folded.dtype == layers[0][0].folded.dtype == layer.folded_bias.dtype
        and layer.folded.dtype in _OUT
        and layer.weight.stride() == layer.folded.stride()
        and layer.weight.stride(0) == layer.weight[0].numel()
        and all(part.dtype == torch.float32 for part in layer[:6] if part is not None)
        and all(part.is_contiguous() for part in (*layer[1:6], layer.folded_bias) if part is not None)
        for layer, _eps in layers
    )


def _places(layer: Layer) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in layer]


class FoldedNorms:
    """Folds ``layers`` (with each batch-norm's eps) again and again, in the memory that they have."""

    def __init__(self, layers: Sequence[tuple[Layer, float]]) -> None:
        self.dtype = layers[0][0].folded.dtype
        self.places = [_places(layer) for layer, _ in layers]
        device, outputs = layers[0][0].weight.device, [len(layer.weight) for layer, _ in layers]
        rows, first = [], 0
        for (layer, _), count in zip(layers, outputs, strict=True):
            rows.append([first, layer.weight[0].numel(), *_places(layer)])
            first += count
        self.table = torch.tensor(rows, dtype=torch.int64).to(device)
        self.eps = torch.tensor([eps for _, eps in layers], dtype=torch.float32).to(device)
        self.layer_of = torch.arange(len(layers), dtype=torch.int32).repeat_interleave(torch.tensor(outputs)).to(device)

    def still(self, layers: Sequence[tuple[Layer, float]]) -> bool:
        """Whether ``layers`` lie where they lay."""
        return [_places(layer) for layer, _ in layers] == self.places

    def __call__(self) -> None:
        with torch.cuda.device_of(self.table):
            fold_norms_kernel[(len(self.layer_of),)](self.layer_of, self.table, self.eps, OUT=_OUT[self.dtype], **BLOCK)
