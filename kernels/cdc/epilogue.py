"""What both forward kernels do with a tile of results before they store it."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def finish(
    total,
    bias_ptr,
    partial_ptr,
    output,
    exists,
    outputs,
    inside,
    HAS_BIAS: tl.constexpr,
    RELU: tl.constexpr,
    SUMS: tl.constexpr,
    dtype: tl.constexpr,
):
    """What is stored of ``total`` [pixels, outputs]: with the bias and after a ReLU if asked for, rounded to ``dtype``.
    With SUMS its sum and its sum of squares over the pixels ``inside`` go into partial [blocks, 2, O] at this program's
    block."""
    if HAS_BIAS:
        total += tl.load(bias_ptr + output, mask=exists, other=0).to(total.dtype)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # NaN stays NaN
    stored = total.to(dtype)
    if SUMS:
        counted = tl.where(inside, stored.to(total.dtype), 0.0)
        place = partial_ptr + tl.program_id(0).to(tl.int64) * 2 * outputs + output
        tl.store(place, tl.sum(counted, axis=0), mask=exists)
        tl.store(place + outputs, tl.sum(counted * counted, axis=0), mask=exists)
    return stored
