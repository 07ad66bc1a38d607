"""Random words, and flips and shifts by them, in Triton: the same words and the same moves as ``reference.py``."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["low", "high"])
def philox_kernel(
    keys_ptr,
    steps_ptr,
    out_ptr,
    keys,
    blocks,
    total,
    count,
    low: tl.int64,
    high: tl.int64,
    BLOCK: tl.constexpr,
):
    """out int64 [S, N, count]: one thread for each of the ``total`` = S N ``blocks`` blocks of four words."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < total
    number, block = index // blocks, index % blocks
    key = tl.load(keys_ptr + number % keys, mask=inside, other=0)
    step = tl.load(steps_ptr + number // keys, mask=inside, other=0)
    four = tl.philox_impl(
        block.to(tl.uint32),
        step.to(tl.uint32),
        key.to(tl.uint32),
        (key >> 32).to(tl.uint32),
        tl.zeros_like(block).to(tl.uint32) + low.to(tl.uint32),
        tl.zeros_like(block).to(tl.uint32) + high.to(tl.uint32),
        10,
    )
    first = number.to(tl.int64) * count
    for word in tl.static_range(4):
        at = block * 4 + word
        tl.store(out_ptr + first + at, four[word].to(tl.int64), mask=inside & (at < count))


@triton.jit
def _move(words_ptr, number, PADDING: tl.constexpr, FLIP: tl.constexpr):
    """How far image ``number`` is shifted down and across, and whether it is flipped."""
    down = ((tl.load(words_ptr + number * 3) * (2 * PADDING + 1)) >> 32).to(tl.int32) - PADDING
    across = ((tl.load(words_ptr + number * 3 + 1) * (2 * PADDING + 1)) >> 32).to(tl.int32) - PADDING
    flipped = down < down
    if FLIP:
        flipped = (tl.load(words_ptr + number * 3 + 2) & 1) == 1
    return down, across, flipped


@triton.jit
def flip_shift_fwd_kernel(
    x_ptr,
    words_ptr,
    out_ptr,
    draws,
    height,
    width,
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    C: tl.constexpr,
    PADDING: tl.constexpr,
    FLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out [T, C, H, W] of x [N, C, H, W], ``draws`` = T / N for each; grid (T, blocks of pixels)."""
    number = tl.program_id(0).to(tl.int64)
    down, across, flipped = _move(words_ptr, number, PADDING, FLIP)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < height * width
    row, column = pixel // width, pixel % width
    from_row, from_column = row + down, tl.where(flipped, width - 1 - column, column) + across
    inside = exists & (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    source = x_ptr + number // draws * x_stride_n + from_row * x_stride_h + from_column * x_stride_w
    target = out_ptr + number * out_stride_n + row * out_stride_h + column * out_stride_w
    for channel in tl.static_range(C):
        value = tl.load(source + channel * x_stride_c, mask=inside, other=0)
        tl.store(target + channel * out_stride_c, value, mask=exists)


@triton.jit
def flip_shift_bwd_kernel(
    grad_ptr,
    words_ptr,
    out_ptr,
    draws,
    height,
    width,
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    C: tl.constexpr,
    PADDING: tl.constexpr,
    FLIP: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out [N, C, H, W], contiguous: the sum over its ``draws`` of grad [T, C, H, W] moved back; grid (N, blocks of
    pixels)."""
    sample = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < height * width
    row, column = pixel // width, pixel % width
    for channel in tl.static_range(C):
        total = tl.zeros([BLOCK], dtype=ACC)
        for draw in range(draws):
            number = sample * draws + draw
            down, across, flipped = _move(words_ptr, number, PADDING, FLIP)
            from_row, back = row - down, column - across
            from_column = tl.where(flipped, width - 1 - back, back)
            inside = exists & (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
            source = grad_ptr + number * grad_stride_n + from_row * grad_stride_h + from_column * grad_stride_w
            total += tl.load(source + channel * grad_stride_c, mask=inside, other=0).to(ACC)
        tl.store(out_ptr + (sample * C + channel) * height * width + pixel, total, mask=exists)
