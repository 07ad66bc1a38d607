"""UMed's adaptive clip in Triton where the texture is computed on the way: maps, both clips, sum and range in one pass.

A warp walks down ROWS rows of a strip of columns and keeps three rows of grey levels, and of where the mask's sides
lie, in registers: the image is loaded once, its grey computed once.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl

from medveil.kernels.clip.pixel import clipped, tanh_grads, texture_of
from medveil.kernels.lbp.codes import codes
from medveil.kernels.pixels import load_pixels, store_pixels, with_neighbours


@triton.jit
def _level(value, ACC: tl.constexpr):
    """round(255 value), half to even, within 0..255, in the lowest 16 of 32 bits; the others hold what does not
    matter."""
    scaled = tl.minimum(tl.maximum(value.to(ACC), 0.0), 1.0) * 255.0
    # Adding 1.5 * 2^23 (fp64: 1.5 * 2^52) leaves no room for a fraction: the hardware rounds it away, and the lowest
    # bits are the number.
    if tl.float64 == ACC:
        level = (scaled + 6755399441055744.0).to(tl.int64, bitcast=True).to(tl.int32)
    else:
        level = (scaled + 12582912.0).to(tl.int32, bitcast=True)
    return level


@triton.jit
def _grey(values, pixel: tl.constexpr, C: tl.constexpr, LAST: tl.constexpr, PX: tl.constexpr, ACC: tl.constexpr):
    """The grey level of one of a lane's pixels: 16-bit fixed-point luma of three channels."""
    level = _level(values[C * pixel if LAST else pixel], ACC)
    if C == 3:
        green = _level(values[C * pixel + 1 if LAST else PX + pixel], ACC)
        blue = _level(values[C * pixel + 2 if LAST else 2 * PX + pixel], ACC)
        # The weights add up to 2^16, which moves what the upper bits held alike out of the number.
        grey = (level * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    else:
        grey = level & 255
    return grey


@triton.jit
def _edge(row, column, height, width, lane, LANES: tl.constexpr, PX: tl.constexpr):
    """The column beside the warp's first and last lane, and whether there is one."""
    beside = tl.where(lane == 0, column - 1, column + PX)
    end = tl.where((row >= 0) & (row < height), width, 0)
    return beside, ((lane == 0) | (lane == LANES - 1)) & (beside >= 0) & (beside < end)


@triton.jit
def _image_row(
    x_ptr,
    row,
    column,
    height,
    width,
    lane,
    C: tl.constexpr,
    LAST: tl.constexpr,
    ACC: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    EDGES: tl.constexpr,
):
    """The values of one row of the image, and its grey levels (int32) with their neighbours; black outside."""
    runs = width // PX
    end = tl.where((row >= 0) & (row < height), width, 0)
    values = load_pixels(x_ptr, row * runs + column // PX, column < end, height * runs, C, LAST, PX)
    grey = ()
    for j in tl.static_range(PX):
        grey = grey + (_grey(values, j, C, LAST, PX, ACC),)
    edge = lane * 0
    if EDGES:
        beside, exists = _edge(row, column, height, width, lane, LANES, PX)
        alone = load_pixels(x_ptr, row * width + beside, exists, height * width, C, LAST, 1)
        edge = _grey(alone, 0, C, LAST, 1, ACC)
    return values, with_neighbours(grey, edge, lane, LANES, PX)


@triton.jit
def _mask_row(
    mask_ptr,
    row,
    column,
    height,
    width,
    lane,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    EDGES: tl.constexpr,
):
    """The sides of one row of the mask (1 foreground, 2 background, 0 outside), and those within one column of it."""
    end = tl.where((row >= 0) & (row < height), width, 0)
    loaded = load_pixels(mask_ptr, row * (width // PX) + column // PX, column < end, 0, 1, False, PX)
    own = ()
    for j in tl.static_range(PX):
        own = own + (tl.where(column < end, tl.where(loaded[j] != 0, 1, 2), 0),)
    edge = lane * 0
    if EDGES:
        beside, exists = _edge(row, column, height, width, lane, LANES, PX)
        value = tl.load(mask_ptr + row * width + beside, mask=exists, other=0)
        edge = tl.where(exists, tl.where(value != 0, 1, 2), 0)
    all_ = with_neighbours(own, edge, lane, LANES, PX)
    near = ()
    for j in tl.static_range(PX):
        near = near + (all_[j] | all_[j + 1] | all_[j + 2],)
    return own, near


@triton.jit
def _walk(
    x_ptr,
    contour_noise_ptr,
    texture_noise_ptr,
    mask_ptr,
    contour_ptr,
    roi_ptr,
    grad_ptr,
    out_ptr,
    out2_ptr,
    packed_ptr,
    first,
    column,
    height,
    width,
    lane,
    limit,
    LARGEST: tl.constexpr,
    C: tl.constexpr,
    LAST: tl.constexpr,
    METHOD: tl.constexpr,
    CLIP: tl.constexpr,
    HAS_CONTOUR: tl.constexpr,
    HAS_ROI: tl.constexpr,
    SAVE: tl.constexpr,
    GRAD: tl.constexpr,
    ACC: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    EDGES: tl.constexpr,
):
    """ROWS rows; how many ties of the codes are in doubt, [LANES]."""
    doubts = column * 0
    plane = height * (width // PX)
    _values, up = _image_row(x_ptr, first - 1, column, height, width, lane, C, LAST, ACC, LANES, PX, EDGES)
    x, level = _image_row(x_ptr, first, column, height, width, lane, C, LAST, ACC, LANES, PX, EDGES)
    _own, above = _mask_row(mask_ptr, first - 1, column, height, width, lane, LANES, PX, EDGES)
    side, beside = _mask_row(mask_ptr, first, column, height, width, lane, LANES, PX, EDGES)
    exists = column < width
    for row in range(first, tl.minimum(first + ROWS, height)):
        run = row * (width // PX) + column // PX
        contour_noise = load_pixels(contour_noise_ptr, run, exists, plane, C, LAST, PX)
        texture_noise = load_pixels(texture_noise_ptr, run, exists, plane, C, LAST, PX)
        x_below, down = _image_row(x_ptr, row + 1, column, height, width, lane, C, LAST, ACC, LANES, PX, EDGES)
        side_below, below = _mask_row(mask_ptr, row + 1, column, height, width, lane, LANES, PX, EDGES)
        found, doubtful = codes(up, level, down, row, column, METHOD, EXACT, PX)
        doubts = doubts | doubtful.to(tl.int32)
        if HAS_CONTOUR:
            contour = load_pixels(contour_ptr, run, exists, 0, 1, False, PX)
        if HAS_ROI:
            roi = load_pixels(roi_ptr, run, exists, 0, 1, False, PX)
        contour_bounds, texture_bounds = (), ()
        for j in tl.static_range(PX):
            if HAS_CONTOUR:
                band = contour[j].to(ACC)
            else:
                band = ((above[j] | beside[j] | below[j]) == 3).to(ACC)
            if HAS_ROI:
                inside = roi[j].to(ACC)
            else:
                inside = (1.0 - band) * (side[j] == 1).to(ACC)
            contour_bounds = contour_bounds + (limit * band,)
            texture_bounds = texture_bounds + (limit * texture_of(found[j], LARGEST, ACC) * inside,)
        if GRAD:
            grad = load_pixels(grad_ptr, run, exists, plane, C, LAST, PX)
            grads_c, grads_t = tanh_grads(
                grad, x, contour_noise, texture_noise, contour_bounds, texture_bounds, limit, C, LAST, PX, ACC
            )
            store_pixels(out_ptr, grads_c, run, exists, plane, C, LAST, PX)
            store_pixels(out2_ptr, grads_t, run, exists, plane, C, LAST, PX)
        else:
            out, packed = clipped(
                x, contour_noise, texture_noise, contour_bounds, texture_bounds, limit, CLIP, C, LAST, PX, ACC
            )
            store_pixels(out_ptr, out, run, exists, plane, C, LAST, PX)
            if SAVE:
                store_pixels(packed_ptr, packed, run, exists, plane, 1, False, PX)
        up, level, x = level, down, x_below
        above, beside, side = beside, below, side_below
    return doubts


@triton.jit
def clip_walk_kernel(
    x_ptr,
    contour_noise_ptr,
    texture_noise_ptr,
    mask_ptr,
    contour_ptr,
    roi_ptr,
    grad_ptr,
    out_ptr,
    out2_ptr,
    packed_ptr,
    height,
    width,
    down,
    across,
    eps: tl.float64,
    LARGEST: tl.constexpr,
    C: tl.constexpr,
    LAST: tl.constexpr,
    METHOD: tl.constexpr,
    CLIP: tl.constexpr,
    HAS_CONTOUR: tl.constexpr,
    HAS_ROI: tl.constexpr,
    SAVE: tl.constexpr,
    GRAD: tl.constexpr,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    PX: tl.constexpr,
    EDGES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Forward: ``out`` and, with SAVE, ``packed``. With GRAD (tanh): the gradients of both noises in ``out`` and
    ``out2``. Images of 1 or 3 channels; without a contour its band of radius 1 is computed. A program for each of N
    times ``down`` times ``across`` blocks of ROWS rows and LANES PX columns; EDGES where there are several across.
    """
    program = tl.program_id(0)
    n = program // (down * across)
    if WIDE:
        n = n.to(tl.int64)
    plane = n * height * (width // PX) * PX
    image = plane * C
    lane = tl.arange(0, LANES)
    first, column = program // across % down * ROWS, (program % across * LANES + lane) * PX
    limit = tl.full([LANES], eps, tl.float64).to(ACC)
    images = x_ptr + image, contour_noise_ptr + image, texture_noise_ptr + image
    maps = mask_ptr + plane, contour_ptr + plane, roi_ptr + plane
    results = grad_ptr + image, out_ptr + image, out2_ptr + image, packed_ptr + plane
    everything = images + maps + results + (first, column, height, width, lane, limit)
    doubts = _walk(
        *everything,
        LARGEST,
        C,
        LAST,
        METHOD,
        CLIP,
        HAS_CONTOUR,
        HAS_ROI,
        SAVE,
        GRAD,
        ACC,
        False,
        ROWS,
        LANES,
        PX,
        EDGES,
    )
    if tl.max(doubts, axis=0) > 0:  # rare enough to start again, with all ties decided in fp64
        _walk(
            *everything,
            LARGEST,
            C,
            LAST,
            METHOD,
            CLIP,
            HAS_CONTOUR,
            HAS_ROI,
            SAVE,
            GRAD,
            ACC,
            True,
            ROWS,
            LANES,
            PX,
            EDGES,
        )
