"""The weights of a central-difference convolution in Triton: both kernels folded into one, and its gradient unfolded
into theirs. One launch each."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def fold_kernel(
    weight_v_ptr,
    weight_c_ptr,
    folded_ptr,
    pairs,
    channels,
    v_stride_o,
    v_stride_c,
    v_stride_h,
    v_stride_w,
    c_stride_o,
    c_stride_c,
    c_stride_h,
    c_stride_w,
    folded_stride_o,
    folded_stride_c,
    folded_stride_h,
    folded_stride_w,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """folded [O, C, 3, 3] = weight_v + weight_c, its centre tap less the sum of weight_c, added up in ACC; grid (blocks
    of the O C ``pairs``)."""
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pair < pairs
    output, channel = (pair // channels).to(tl.int64), pair % channels
    v_ptr = weight_v_ptr + output * v_stride_o + channel * v_stride_c
    c_ptr = weight_c_ptr + output * c_stride_o + channel * c_stride_c
    out_ptr = folded_ptr + output * folded_stride_o + channel * folded_stride_c
    lost = tl.zeros([BLOCK], dtype=ACC)
    centre = tl.zeros([BLOCK], dtype=ACC)
    for tap in tl.static_range(9):
        v = tl.load(v_ptr + tap // 3 * v_stride_h + tap % 3 * v_stride_w, mask=inside, other=0).to(ACC)
        c = tl.load(c_ptr + tap // 3 * c_stride_h + tap % 3 * c_stride_w, mask=inside, other=0).to(ACC)
        lost += c
        if tap == 4:
            centre = v + c
        else:
            tl.store(out_ptr + tap // 3 * folded_stride_h + tap % 3 * folded_stride_w, v + c, mask=inside)
    tl.store(out_ptr + folded_stride_h + folded_stride_w, centre - lost, mask=inside)


@triton.jit
def unfold_kernel(
    grad_ptr,
    grad_v_ptr,
    grad_c_ptr,
    splits,
    pairs,
    channels,
    grad_stride_s,
    grad_stride_o,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    v_stride_o,
    v_stride_c,
    v_stride_h,
    v_stride_w,
    c_stride_o,
    c_stride_c,
    c_stride_h,
    c_stride_w,
    ACC: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Both kernels' gradients from that of the folded one, which is the sum of grad [splits, O, C, 3, 3] over its first
    axis, SPLITS of it at a time: grad_v is that sum, grad_c the sum less its centre tap; grid (blocks of the O C
    ``pairs``)."""
    pair, tap, part = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, 16), tl.arange(0, SPLITS)
    output, channel = (pair // channels).to(tl.int64), pair % channels
    inside = (tap < 9)[:, None] & (pair < pairs)[None, :]
    of_tap = tap // 3 * grad_stride_h + tap % 3 * grad_stride_w
    place = of_tap[:, None] + (output * grad_stride_o + channel * grad_stride_c)[None, :]
    place = part.to(tl.int64)[:, None, None] * grad_stride_s + place[None, :, :]
    total = tl.zeros([SPLITS, 16, BLOCK], dtype=ACC)
    for first in range(0, splits, SPLITS):
        known = (first + part < splits)[:, None, None] & inside[None, :, :]
        here = grad_ptr + tl.cast(first, tl.int64) * grad_stride_s
        total += tl.load(here + place, mask=known, other=0).to(ACC)
    summed = tl.sum(total, axis=0)
    centre = tl.sum(tl.where((tap == 4)[:, None], summed, 0.0), axis=0)
    v_place = (tap // 3 * v_stride_h + tap % 3 * v_stride_w)[:, None] + (output * v_stride_o + channel * v_stride_c)
    c_place = (tap // 3 * c_stride_h + tap % 3 * c_stride_w)[:, None] + (output * c_stride_o + channel * c_stride_c)
    tl.store(grad_v_ptr + v_place, summed, mask=inside)
    tl.store(grad_c_ptr + c_place, summed - centre[None, :], mask=inside)
