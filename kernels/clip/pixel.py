"""UMed's adaptive clip of the pixels that a lane holds, in Triton: forward, and the derivative of the tanh clip.

CLIP is 0 for hard, 1 for tanh, 2 for straight-through. A lane's image values are a tuple as ``pixels.load_pixels``
gives it; bounds are one value per pixel.
"""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def _within(value, low, high):
    """``value`` between the bounds; NaN stays NaN, so that a generator that has diverged is seen."""
    value = tl.maximum(value, low, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(value, high, propagate_nan=tl.PropagateNan.ALL)


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
def texture_of(code, LARGEST: tl.constexpr, ACC: tl.constexpr):
    """The intensity code / LARGEST in fp32, rounded as a division is: its quotient by the reciprocal, corrected by what
    that leaves over."""
    code = code.to(tl.float32)
    reciprocal: tl.constexpr = 1.0 / LARGEST
    quotient = code * reciprocal
    return tl.fma(tl.fma(-quotient, LARGEST + 0.0, code), reciprocal, quotient).to(ACC)


@triton.jit
def clipped(
    x,
    contour_noise,
    texture_noise,
    contour_bounds,
    texture_bounds,
    limit,
    CLIP: tl.constexpr,
    C: tl.constexpr,
    LAST: tl.constexpr,
    PX: tl.constexpr,
    ACC: tl.constexpr,
):
    """The protected values, and of each group of four channels and each pixel the byte that says which gradients pass
    (bit 2 c: the contour noise of channel c, bit 2 c + 1: the texture noise), unless CLIP is 1."""
    passes = ()
    inverse = 1.0 / limit
    protected = ()
    for index in tl.static_range(C * PX):
        noise_c, noise_t = contour_noise[index].to(ACC), texture_noise[index].to(ACC)
        bound_c = contour_bounds[index // C if LAST else index % PX]
        bound_t = texture_bounds[index // C if LAST else index % PX]
        if CLIP == 1:
            delta = bound_c * _tanh(noise_c * inverse) + bound_t * _tanh(noise_t * inverse)
        else:
            delta_c, delta_t = _within(noise_c, -bound_c, bound_c), _within(noise_t, -bound_t, bound_t)
            delta = delta_c + delta_t
        summed = x[index].to(ACC) + delta
        result = _within(summed, 0.0, 1.0)
        protected = protected + (result,)
        if CLIP == 0:
            kept = summed == result
            passes = passes + ((kept & (delta_c == noise_c), kept & (delta_t == noise_t)),)
    packed = ()
    if CLIP != 1:
        for group in tl.static_range((C + 3) // 4):
            for pixel in tl.static_range(PX):
                # Nothing passes where the bound is 0.
                open_c, open_t = contour_bounds[pixel] > 0.0, texture_bounds[pixel] > 0.0
                bits = tl.where(open_c, 0b01010101, 0) | tl.where(open_t, 0b10101010, 0)
                if CLIP == 0:
                    found = bits * 0
                    for channel in tl.static_range(4 * group, min(4 * group + 4, C)):
                        both = passes[C * pixel + channel if LAST else PX * channel + pixel]
                        found += tl.where(both[0], 1 << 2 * (channel % 4), 0)
                        found += tl.where(both[1], 2 << 2 * (channel % 4), 0)
                    bits = bits & found
                else:
                    bits = bits & ((1 << 2 * min(C - 4 * group, 4)) - 1)
                packed = packed + (bits.to(tl.uint8),)
    return protected, packed


@triton.jit
def tanh_grads(
    grad,
    x,
    contour_noise,
    texture_noise,
    contour_bounds,
    texture_bounds,
    limit,
    C: tl.constexpr,
    LAST: tl.constexpr,
    PX: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradients of both noises under the tanh clip."""
    inverse = 1.0 / limit
    grads_c, grads_t = (), ()
    for index in tl.static_range(C * PX):
        z_c, z_t = contour_noise[index].to(ACC) * inverse, texture_noise[index].to(ACC) * inverse
        bound_c = contour_bounds[index // C if LAST else index % PX]
        bound_t = texture_bounds[index // C if LAST else index % PX]
        summed = x[index].to(ACC) + (bound_c * _tanh(z_c) + bound_t * _tanh(z_t))
        passing = tl.where((summed >= 0.0) & (summed <= 1.0), grad[index].to(ACC), 0.0) * inverse
        grads_c = grads_c + (passing * bound_c * _tanh_grad(z_c),)
        grads_t = grads_t + (passing * bound_t * _tanh_grad(z_t),)
    return grads_c, grads_t
