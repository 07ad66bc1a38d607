"""Central-difference convolution in eager PyTorch: as the paper writes it, and folded into one convolution.

    out(r) = sum_d w_v(d) x(r + d)  +  sum_d w_c(d) [x(r + d) - x(r)]                                (UMed, Eq. 3)

The term in x(r) is linear in x as well, so the whole is one convolution with ``W = w_v + w_c`` whose centre tap has
``sum_d w_c(d)`` subtracted: exact for zero padding, any stride and any dilation. Its gradients follow from that of W:
dw_v(d) = dW(d), dw_c(d) = dW(d) - dW(centre).
"""

import threading

import torch
import torch.nn.functional as F
from torch import Tensor

from medveil.kernels.layout import laid_out_like

Pair = list[int]


def naive_cdc_conv2d(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Eq. 3 term by term, in three convolutions: what the folded form is checked against."""
    # The term in x(r) is a 1x1 convolution; its window starts one dilation further in than the 3x3 window.
    rows, columns = (p - d for p, d in zip(padding, dilation, strict=True))
    centred = F.pad(x, (columns, columns, rows, rows))
    difference = F.conv2d(x, weight_c, None, stride, padding, dilation) - F.conv2d(
        centred, weight_c.sum((2, 3), keepdim=True), None, stride
    )
    return F.conv2d(x, weight_v, bias, stride, padding, dilation) + difference


def fold(weight_v: Tensor, weight_c: Tensor, out: Tensor | None = None) -> Tensor:
    """The one kernel [O, C, 3, 3] that does the work of both, in ``out`` if given."""
    weight = torch.add(weight_v, weight_c, out=out)
    weight[:, :, 1, 1] -= weight_c.sum((2, 3))
    return weight


_kept = threading.local()
_BLOCK = 1 << 19  # weights folded at a time: few enough for the cache
_SMALL = 1 << 14  # weights that are folded in one product
_MIXING = torch.eye(9, dtype=torch.float32)  # what of each tap of weight_c goes to each tap of the folded kernel
_MIXING[:, 4] -= 1


def _folded(weight_v: Tensor, weight_c: Tensor) -> Tensor:
    """:func:`fold`, on the CPU in memory that the next call of this thread overwrites.

    Wide layers' kernels are tens of megabytes: fresh pages for them would take a fifth of the convolution's time.
    """
    if weight_v.device.type != "cpu" or weight_v.dtype != torch.float32:
        return fold(weight_v, weight_c)
    plain = weight_v.is_contiguous() and weight_c.is_contiguous() and weight_c.dtype == torch.float32
    small = plain and weight_v.numel() <= _SMALL
    if type(weight_v) not in (Tensor, torch.nn.Parameter):  # shapes alone, as under torch.compile
        weight = fold(weight_v, weight_c)
        # In the layout that the product of small ones has: with one input channel it is not that of weight_v.
        return weight.view(-1, 9).view(weight_v.shape) if small else weight
    if small:
        # Few operations: beside a stem's convolution, which empties the caches, each of them counts.
        return torch.addmm(weight_v.view(-1, 9), weight_c.view(-1, 9), _MIXING).view(weight_v.shape)
    memory = getattr(_kept, "memory", None)
    if memory is None or len(memory) < weight_v.numel():
        with torch.inference_mode(False):  # what is made in that mode cannot be written to outside
            memory = _kept.memory = torch.empty(weight_v.numel(), dtype=torch.float32)
    dense = weight_v.is_contiguous() or weight_v.is_contiguous(memory_format=torch.channels_last)
    strides = weight_v.stride() if dense else torch.empty(weight_v.shape, device="meta").stride()
    weight = memory.as_strided(weight_v.shape, strides)
    with torch.no_grad():
        if not plain:
            return fold(weight_v, weight_c, weight)
        # Sums of nine neighbours are several times faster as a product.
        outputs, channels = weight.shape[:2]
        block = max(1, _BLOCK // max(1, 9 * channels))
        ones = torch.ones(9, dtype=torch.float32)
        for start in range(0, outputs, block):
            part, v, c = (of[start : start + block] for of in (weight, weight_v, weight_c))
            torch.add(v, c, out=part)
            part[:, :, 1, 1].sub_(torch.mv(c.view(-1, 9), ones).view(-1, channels))
    return weight


def cdc_conv2d(
    x: Tensor, weight_v: Tensor, weight_c: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The folded form. The weights are folded in their own precision and only then rounded to that of ``x``."""
    weight = _folded(weight_v, weight_c).to(x.dtype)
    return F.conv2d(x, weight, None if bias is None else bias.to(x.dtype), stride, padding, dilation)


def cdc_conv2d_stats(
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """The output, after a ReLU if asked for, and the sums [2, O] of it and of its squares over all but the channels,
    in fp32 (fp64 for fp64)."""
    out = cdc_conv2d(x, weight_v, weight_c, bias, stride, padding, dilation)
    out = out.relu() if relu else out
    return out, sums(out)


def sums(out: Tensor) -> Tensor:
    """The sums [2, O] of ``out`` and of its squares over all but the channels, in fp32 (fp64 for fp64)."""
    counted = out if out.dtype == torch.float64 else out.float()
    return torch.stack([counted.sum((0, 2, 3)), counted.square().sum((0, 2, 3))])


def cdc_conv2d_backward(
    grad: Tensor,
    x: Tensor,
    weight_v: Tensor,
    weight_c: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of both kernels (in their precision) and of the bias, each in the layout of what it belongs to;
    empty [0] where not ``wanted``: x, the kernels, the bias."""
    weight = _folded(weight_v, weight_c).to(x.dtype)
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], 1, wanted
    )
    found = [laid_out_like(grad_x, x) if wanted[0] else grad.new_empty(0)]
    if wanted[1]:
        grad_weight = grad_weight.to(weight_v.dtype)
        grad_c = torch.sub(grad_weight, grad_weight[:, :, 1:2, 1:2], out=torch.empty_like(weight_c))
        found += [laid_out_like(grad_weight, weight_v), grad_c]
    else:
        found += [grad.new_empty(0), grad.new_empty(0)]
    return found[0], found[1], found[2], grad_bias if wanted[2] else grad.new_empty(0)
