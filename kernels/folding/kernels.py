"""The weights of convolutions that do the work of the batch-norms behind them, in Triton: one program an output
channel, of whichever layer."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

FIELDS: tl.constexpr = tl.constexpr(10)  # of a layer in the table, in the order of ``cuda.Layer``


@triton.jit
def _value(at, index, there, otherwise):
    """The fp32 number ``index`` of the tensor at address ``at``; ``otherwise`` where there is none."""
    return tl.load(at.to(tl.pointer_type(tl.float32)) + index, mask=there, other=otherwise)


@triton.jit
def fold_norms_kernel(layer_ptr, table_ptr, eps_ptr, OUT: tl.constexpr, BLOCK: tl.constexpr):
    """W' = W g / sqrt(v + e) and b' = (b - m) g / sqrt(v + e) + beta of one output channel; grid (all layers'
    channels). ``layer`` int32: the layer of each."""
    layer = tl.load(layer_ptr + tl.program_id(0))
    row = table_ptr + layer * FIELDS
    channel = tl.program_id(0) - tl.load(row)
    length = tl.load(row + 1)
    weight, bias, mean = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    variance, gain, shift = tl.load(row + 5), tl.load(row + 6), tl.load(row + 7)
    folded = tl.load(row + 8).to(tl.pointer_type(OUT)) + channel * length
    scale = _value(gain, channel, gain != 0, 1.0)
    scale = scale / tl.sqrt_rn(_value(variance, channel, variance != 0, 1.0) + tl.load(eps_ptr + layer))
    moved = (_value(bias, channel, bias != 0, 0.0) - _value(mean, channel, mean != 0, 0.0)) * scale
    moved += _value(shift, channel, shift != 0, 0.0)
    tl.store(tl.load(row + 9).to(tl.pointer_type(OUT)) + channel, moved.to(OUT))
    for first in range(0, length, BLOCK):
        place = first + tl.arange(0, BLOCK)
        value = _value(weight, channel * length + place, place < length, 0.0)
        tl.store(folded + place, (value * scale).to(OUT), mask=place < length)
