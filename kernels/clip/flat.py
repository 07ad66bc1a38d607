"""UMed's adaptive clip in Triton where all maps are given, and the backward pass from the packed byte: every pixel by
itself, four to a lane."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.clip.pixel import clipped, tanh_grads
from medveil.kernels.pixels import load_pixels, store_pixels


@triton.jit
def _block(pixels, blocks, LANES: tl.constexpr, PX: tl.constexpr, WIDE: tl.constexpr):
    """Which image this program works on, its lanes' runs of pixels in it, and which of them exist."""
    n, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    run = block * LANES + tl.arange(0, LANES)
    if WIDE:
        n, run = n.to(tl.int64), run.to(tl.int64)
    return n, run, run < pixels // PX


@triton.jit
def clip_flat_kernel(
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
    pixels,
    blocks,
    eps: tl.float64,
    C: tl.constexpr,
    LAST: tl.constexpr,
    CLIP: tl.constexpr,
    HAS_ROI: tl.constexpr,
    SAVE: tl.constexpr,
    GRAD: tl.constexpr,
    ACC: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Forward: ``out`` and, with SAVE, ``packed``. With GRAD (tanh): the gradients of both noises in ``out`` and
    ``out2``. Images of ``pixels`` pixels each, a multiple of PX; a program for each of N times ``blocks`` blocks."""
    n, run, exists = _block(pixels, blocks, LANES, PX, WIDE)
    runs = pixels // PX
    limit = tl.full([LANES], eps, tl.float64).to(ACC)
    plane = n * runs * PX
    image = plane * C
    x = load_pixels(x_ptr + image, run, exists, runs, C, LAST, PX)
    contour_noise = load_pixels(contour_noise_ptr + image, run, exists, runs, C, LAST, PX)
    texture_noise = load_pixels(texture_noise_ptr + image, run, exists, runs, C, LAST, PX)
    contour = load_pixels(contour_ptr + plane, run, exists, 0, 1, False, PX)
    texture = load_pixels(texture_ptr + plane, run, exists, 0, 1, False, PX)
    region = load_pixels((roi_ptr if HAS_ROI else mask_ptr) + plane, run, exists, 0, 1, False, PX)
    contour_bounds, texture_bounds = (), ()
    for j in tl.static_range(PX):
        band = contour[j].to(ACC)
        if HAS_ROI:
            inside = region[j].to(ACC)
        else:
            inside = (1.0 - band) * (region[j] != 0).to(ACC)
        contour_bounds = contour_bounds + (limit * band,)
        texture_bounds = texture_bounds + (limit * texture[j].to(ACC) * inside,)
    bounds = contour_bounds, texture_bounds
    if GRAD:
        grad = load_pixels(grad_ptr + image, run, exists, runs, C, LAST, PX)
        grads = tanh_grads(grad, x, contour_noise, texture_noise, bounds[0], bounds[1], limit, C, LAST, PX, ACC)
        store_pixels(out_ptr + image, grads[0], run, exists, runs, C, LAST, PX)
        store_pixels(out2_ptr + image, grads[1], run, exists, runs, C, LAST, PX)
    else:
        out, packed = clipped(x, contour_noise, texture_noise, bounds[0], bounds[1], limit, CLIP, C, LAST, PX, ACC)
        store_pixels(out_ptr + image, out, run, exists, runs, C, LAST, PX)
        if SAVE:
            groups: tl.constexpr = (C + 3) // 4
            store_pixels(packed_ptr + plane * groups, packed, run, exists, runs, groups, False, PX)


@triton.jit
def packed_bwd_kernel(
    grad_ptr,
    packed_ptr,
    grad_c_ptr,
    grad_t_ptr,
    pixels,
    blocks,
    C: tl.constexpr,
    LAST: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Both noises' gradients from grad and packed [N, groups, pixels]; a program for each of N times ``blocks``
    blocks."""
    n, run, exists = _block(pixels, blocks, LANES, PX, WIDE)
    runs = pixels // PX
    plane = n * runs * PX
    image = plane * C
    groups: tl.constexpr = (C + 3) // 4
    bits = load_pixels(packed_ptr + plane * groups, run, exists, runs, groups, False, PX)
    grad = load_pixels(grad_ptr + image, run, exists, runs, C, LAST, PX)
    grads_c, grads_t = (), ()
    for index in tl.static_range(C * PX):
        if LAST:
            here = bits[index % C // 4 * PX + index // C].to(tl.int32) >> (2 * (index % C % 4))
        else:
            here = bits[index // PX // 4 * PX + index % PX].to(tl.int32) >> (2 * (index // PX % 4))
        nothing = tl.zeros_like(grad[index])
        grads_c = grads_c + (tl.where((here & 1) != 0, grad[index], nothing),)
        grads_t = grads_t + (tl.where((here & 2) != 0, grad[index], nothing),)
    store_pixels(grad_c_ptr + image, grads_c, run, exists, runs, C, LAST, PX)
    store_pixels(grad_t_ptr + image, grads_t, run, exists, runs, C, LAST, PX)
