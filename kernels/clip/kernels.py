"""UMed's adaptive clip in Triton: maps, both clips, sum and range in one pass over the image.

A program walks down ROWS rows of a block of columns and keeps three rows of grey levels and of the mask's horizontal
dilation in registers. Backward passes: ``packed_bwd_kernel`` for the hard and the straight-through clip (one byte per
pixel and four channels says which gradients pass), the forward kernel with GRAD for the tanh clip, whose maps are
recomputed.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.lbp.kernels import lbp_code


@triton.jit
def _rounded_level(x_ptr, offset, inside, ACC: tl.constexpr):
    """round(255 x), half to even, within 0..255, in ACC; 0 outside."""
    value = tl.load(x_ptr + offset, mask=inside, other=0.0).to(ACC) * 255.0
    # Adding and taking off 1.5 * 2^23 (fp64: 1.5 * 2^52) leaves no room for a fraction: the hardware rounds it away.
    if tl.float64 == ACC:
        shift = 6755399441055744.0
    else:
        shift = 12582912.0
    value = (value + shift) - shift
    return tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.int32)


@triton.jit
def _grey(x_ptr, row, column, height, width, stride_c, stride_h, stride_w, C: tl.constexpr, ACC: tl.constexpr):
    """Grey levels (int32) of one row: 16-bit fixed-point luma of three channels; black outside."""
    end = tl.where((row >= 0) & (row < height), width, 0)
    inside = (column >= 0) & (column < end)
    offset = row * stride_h + column * stride_w
    first = _rounded_level(x_ptr, offset, inside, ACC)
    if C == 3:
        green = _rounded_level(x_ptr, offset + stride_c, inside, ACC)
        blue = _rounded_level(x_ptr, offset + 2 * stride_c, inside, ACC)
        first = (first * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return first


@triton.jit
def _reach(mask_ptr, row, column, height, width, BAND: tl.constexpr):
    """Of one row of the mask: bit 0 where foreground, bit 1 where background lies within BAND columns."""
    end = tl.where((row >= 0) & (row < height), width, 0)
    found = column * 0
    for shift in tl.static_range(-BAND, BAND + 1):
        at = column + shift
        inside = (at >= 0) & (at < end)
        value = tl.load(mask_ptr + row * width + at, mask=inside, other=0)
        found = found | tl.where(inside, tl.where(value != 0, 1, 2), 0)
    return found


@triton.jit
def _within(value, low, high):
    """``value`` between the bounds; NaN stays NaN, so that a generator that has diverged is seen."""
    return tl.where(value < low, low, tl.where(value > high, high, value))


@triton.jit
def _tanh(z):
    """By exp alone, accurate to about one unit of 1 in fp32."""
    e = tl.exp(-2.0 * tl.abs(z))
    size = (1.0 - e) / (1.0 + e)
    return tl.where(z < 0, -size, size)


@triton.jit
def _tanh_grad(z):
    e = tl.exp(-2.0 * tl.abs(z))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def clip_kernel(
    x_ptr,
    contour_noise_ptr,
    texture_noise_ptr,
    mask_ptr,
    contour_ptr,
    roi_ptr,
    texture_ptr,
    grad_ptr,
    out_ptr,
    out2_ptr,
    packed_ptr,
    height,
    width,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    eps: tl.float64,
    LARGEST: tl.constexpr,
    C: tl.constexpr,
    METHOD: tl.constexpr,
    CLIP: tl.constexpr,
    BAND: tl.constexpr,
    HAS_CONTOUR: tl.constexpr,
    HAS_ROI: tl.constexpr,
    HAS_TEXTURE: tl.constexpr,
    SAVE: tl.constexpr,
    GRAD: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Forward: ``out`` and, with SAVE, ``packed``. With GRAD (tanh): the gradients of both noises in ``out`` and
    ``out2``.

    x, the noises, grad and the outputs share one set of strides; maps, mask and packed are contiguous. CLIP 0 hard,
    1 tanh, 2 straight-through. BAND is 0 where no contour has to be found. Grid (N, blocks of ROWS, blocks of COLUMNS).
    """
    n = tl.program_id(0)
    if WIDE:
        n = n.to(tl.int64)
    image = n * stride_n
    plane = n * height * width
    x_ptr += image
    mask_ptr += plane
    first = tl.program_id(1) * ROWS
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    limit = tl.full([COLUMNS], eps, tl.float64).to(ACC)
    if not HAS_TEXTURE:
        a = _grey(x_ptr, first - 1, column - 1, height, width, stride_c, stride_h, stride_w, C, ACC)
        b = _grey(x_ptr, first - 1, column, height, width, stride_c, stride_h, stride_w, C, ACC)
        c = _grey(x_ptr, first - 1, column + 1, height, width, stride_c, stride_h, stride_w, C, ACC)
        d = _grey(x_ptr, first, column - 1, height, width, stride_c, stride_h, stride_w, C, ACC)
        e = _grey(x_ptr, first, column, height, width, stride_c, stride_h, stride_w, C, ACC)
        f = _grey(x_ptr, first, column + 1, height, width, stride_c, stride_h, stride_w, C, ACC)
    if BAND == 1:
        above = _reach(mask_ptr, first - 1, column, height, width, BAND)
        level = _reach(mask_ptr, first, column, height, width, BAND)
    for row in range(first, tl.minimum(first + ROWS, height)):
        inside = column < width
        place = plane + row * width + column
        if HAS_CONTOUR:
            band = tl.load(contour_ptr + place, mask=inside, other=0).to(ACC)
        elif BAND == 1:
            below = _reach(mask_ptr, row + 1, column, height, width, BAND)
            band = ((above | level | below) == 3).to(ACC)
            above, level = level, below
        else:
            band = tl.zeros([COLUMNS], dtype=ACC)
        if HAS_ROI:
            region = tl.load(roi_ptr + place, mask=inside, other=0).to(ACC)
        else:
            region = (1.0 - band) * (tl.load(mask_ptr + row * width + column, mask=inside, other=0) != 0).to(ACC)
        if HAS_TEXTURE:
            texture = tl.load(texture_ptr + place, mask=inside, other=0).to(ACC)
        else:
            g = _grey(x_ptr, row + 1, column - 1, height, width, stride_c, stride_h, stride_w, C, ACC)
            h = _grey(x_ptr, row + 1, column, height, width, stride_c, stride_h, stride_w, C, ACC)
            i = _grey(x_ptr, row + 1, column + 1, height, width, stride_c, stride_h, stride_w, C, ACC)
            code = lbp_code(a, b, c, d, e, f, g, h, i, row, column, inside, METHOD)
            texture = tl.div_rn(code.to(tl.float32), code.to(tl.float32) * 0.0 + LARGEST).to(ACC)
            a, b, c, d, e, f = d, e, f, g, h, i
        contour_bound = limit * band
        texture_bound = limit * texture * region
        bits = column * 0
        for channel in tl.static_range(C):
            offset = image + channel * stride_c + row * stride_h + column * stride_w
            contour_noise = tl.load(contour_noise_ptr + offset, mask=inside, other=0).to(ACC)
            texture_noise = tl.load(texture_noise_ptr + offset, mask=inside, other=0).to(ACC)
            value = tl.load(x_ptr + (offset - image), mask=inside, other=0).to(ACC)
            if CLIP == 1:
                delta = contour_bound * _tanh(contour_noise / limit) + texture_bound * _tanh(texture_noise / limit)
            else:
                delta_c = _within(contour_noise, -contour_bound, contour_bound)
                delta_t = _within(texture_noise, -texture_bound, texture_bound)
                delta = delta_c + delta_t
            summed = value + delta
            if GRAD:
                grad = tl.load(grad_ptr + offset, mask=inside, other=0).to(ACC)
                grad = tl.where((summed >= 0.0) & (summed <= 1.0), grad, 0.0)
                grad_c = grad * (contour_bound / limit) * _tanh_grad(contour_noise / limit)
                grad_t = grad * (texture_bound / limit) * _tanh_grad(texture_noise / limit)
                tl.store(out_ptr + offset, grad_c, mask=inside)
                tl.store(out2_ptr + offset, grad_t, mask=inside)
            else:
                tl.store(out_ptr + offset, _within(summed, 0.0, 1.0), mask=inside)
            if SAVE:
                passes_c, passes_t = contour_bound > 0.0, texture_bound > 0.0
                if CLIP == 0:
                    in_range = (summed >= 0.0) & (summed <= 1.0)
                    passes_c = passes_c & in_range & (tl.abs(contour_noise) <= contour_bound)
                    passes_t = passes_t & in_range & (tl.abs(texture_noise) <= texture_bound)
                bits = bits | (passes_c.to(tl.int32) | passes_t.to(tl.int32) << 1) << (2 * (channel % 4))
                if channel % 4 == 3 or channel == C - 1:
                    groups: tl.constexpr = (C + 3) // 4
                    group_place = (n * groups + channel // 4) * height * width + row * width + column
                    tl.store(packed_ptr + group_place, bits.to(tl.uint8), mask=inside)
                    bits = column * 0


@triton.jit
def packed_bwd_kernel(
    grad_ptr,
    packed_ptr,
    grad_c_ptr,
    grad_t_ptr,
    pixels,
    stride_n,
    stride_c,
    stride_p,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Both noises' gradients of [N, C, pixels] from packed [N, groups, pixels]; grid (N, blocks of pixels)."""
    n = tl.program_id(0)
    if WIDE:
        n = n.to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    groups: tl.constexpr = (C + 3) // 4
    bits = pixel * 0
    for channel in tl.static_range(C):
        if channel % 4 == 0:
            bits = tl.load(packed_ptr + (n * groups + channel // 4) * pixels + pixel, mask=inside, other=0).to(tl.int32)
        offset = n * stride_n + channel * stride_c + pixel * stride_p
        grad = tl.load(grad_ptr + offset, mask=inside, other=0)
        nothing = tl.zeros_like(grad)
        here = bits >> (2 * (channel % 4))
        tl.store(grad_c_ptr + offset, tl.where((here & 1) != 0, grad, nothing), mask=inside)
        tl.store(grad_t_ptr + offset, tl.where((here & 2) != 0, grad, nothing), mask=inside)
