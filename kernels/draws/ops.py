"""``medveil::philox_words`` and ``medveil::flip_shift``: registration, gradients and the public functions."""

from typing import Any

import torch
from torch import Tensor

from medveil.kernels.draws import reference
from medveil.kernels.layout import empty_moved
from medveil.kernels.registration import register

for _schema in (
    "philox_words(Tensor keys, Tensor steps, int low, int high, int count) -> Tensor",
    "flip_shift(Tensor x, Tensor words, int padding, bool flip) -> Tensor",
    "flip_shift_backward(Tensor grad, Tensor words, int samples, int padding, bool flip) -> Tensor",
):
    _name, _arguments = _schema.split("(", 1)
    torch.library.define(f"medveil::{_name}", f"({_arguments}", tags=(torch.Tag.pt2_compliant_tag,))


_CUDA = "medveil.kernels.draws.cuda"
register(
    "philox_words",
    reference.philox_words,
    lambda keys, steps, low, high, count: keys.new_empty(steps.shape[0], keys.shape[0], count),
    _CUDA,
)
register("flip_shift", reference.flip_shift, lambda x, words, *_: empty_moved(x, words.shape[0]), _CUDA)
register(
    "flip_shift_backward",
    reference.flip_shift_backward,
    lambda grad, words, samples, *_: grad.new_empty(samples, *grad.shape[1:]),
    _CUDA,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, words, *ctx.options = inputs
    ctx.samples = x.shape[0]
    ctx.save_for_backward(words)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (words,) = ctx.saved_tensors
    return torch.ops.medveil.flip_shift_backward(grad, words, ctx.samples, *ctx.options), None, None, None


torch.library.register_autograd("medveil::flip_shift", _backward, setup_context=_setup_context)


def philox_words(keys: Tensor, steps: Tensor, key: tuple[int, int], count: int) -> Tensor:
    """``count`` random words of 32 bits, in int64, for each step and key: [S, N, count].

    ``keys`` int64 [N], ``steps`` int64 [S] (their lowest 32 bits count), ``key`` two words of 32 bits. Word i is word
    i mod 4 of Philox4x32-10 at the counter (i // 4, step, low half of the key, high half): the same on every device.
    """
    words: Tensor = torch.ops.medveil.philox_words(keys, steps, *key, count)
    return words


def flip_shift(x: Tensor, words: Tensor, padding: int, flip: bool = True) -> Tensor:
    """Flipped and shifted images, zeros coming in at the border ("crop from padding"); differentiable once in ``x``.

    ``x`` floating [N, C, H, W]; ``words`` int64 [T, 3] of 32 bits, T a multiple of N: T / N images come of each sample,
    next to each other, [T, C, H, W]. The first two words give shifts of up to ``padding`` pixels down and across,
    the last bit of the third, if ``flip``, a horizontal flip. Raises ``ValueError`` for words of another shape.
    """
    if words.ndim != 2 or words.shape[1] != 3:
        raise ValueError(f"words must be [T, 3], not {list(words.shape)}")
    if words.shape[0] % max(1, x.shape[0]):
        raise ValueError(f"{words.shape[0]} transforms are not a whole number for each of {x.shape[0]} images")
    out: Tensor = torch.ops.medveil.flip_shift(x, words, padding, flip)
    return out
