"""What is done with the selected places: the mask is written, or the noise moved (SALM, Eq. 6)."""

# mypy: ignore-errors
# Triton compiles these functions; their arguments have no Python types.

import triton
import triton.language as tl


@triton.jit
def _with_sign_of(size, grad):
    """``size`` where grad is positive, -``size`` where it is negative; either where it is 0."""
    if size.dtype == tl.float32 and grad.dtype.is_floating():
        sign = grad.to(tl.float32).to(tl.int32, bitcast=True) & -0x80000000
        signed = (sign ^ size.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    else:
        signed = tl.where(grad < 0, -size, size)
    return signed


@triton.jit
def apply(
    chosen,
    grad_ptr,
    noise_ptr,
    x_ptr,
    support_ptr,
    out_ptr,
    place,
    inside,
    positions,
    step,
    radius,
    C: tl.constexpr,
    STEP: tl.constexpr,
    HAS_SUPPORT: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write the mask, or with STEP the next noise, of the places of one row."""
    for channel in tl.static_range(C):
        at = channel * positions + place
        if STEP:
            taken = chosen
            if HAS_SUPPORT:
                taken = taken & (tl.load(support_ptr + at, mask=inside, other=0) != 0)
            grad = tl.load(grad_ptr + at, mask=inside, other=0)
            noise = tl.load(noise_ptr + at, mask=inside, other=0).to(ACC)
            image = tl.load(x_ptr + at, mask=inside, other=0).to(ACC)
            back = tl.full(place.shape, step, tl.float64).to(ACC)
            bound = tl.full(place.shape, radius, tl.float64).to(ACC)
            moved = noise - tl.where(taken & (grad != 0), _with_sign_of(back, grad), 0.0)
            moved = tl.minimum(tl.maximum(moved, -bound), bound)
            moved = tl.minimum(tl.maximum(moved, -image), 1.0 - image)
            tl.store(out_ptr + at, moved, mask=inside)
        else:
            tl.store(out_ptr + at, chosen.to(tl.uint8), mask=inside)
