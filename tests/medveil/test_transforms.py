"""Flips and shifts: what they do, and that their gradient is the adjoint."""

import torch
from torch.nn import functional as F

from medveil import keyed
from medveil.transforms import apply_affine, apply_flip_shift, draw_affine, draw_flip_shift


def test_flip_shift_is_a_flip_and_a_crop_from_padding():
    x = torch.rand(32, 2, 7, 5)
    keys = keyed.keys_of([str(i) for i in range(32)])
    out = apply_flip_shift(x, draw_flip_shift(0, "t", 0, keys, padding=2))
    seen = set()
    for image, moved in zip(x, out, strict=True):
        padded = {flip: F.pad(image.flip(-1) if flip else image, (2, 2, 2, 2)) for flip in (False, True)}
        crops = {
            (flip, r, c): padded[flip][:, r : r + 7, c : c + 5]
            for flip in (False, True)
            for r in range(5)
            for c in range(5)
        }
        seen |= {name for name, crop in crops.items() if torch.equal(crop, moved)}
    assert len(seen) > 20
    assert {name[0] for name in seen} == {False, True}


def test_without_flips_and_padding_nothing_moves():
    x, keys = torch.rand(3, 2, 5, 4), keyed.keys_of(["a", "b", "c"])
    assert torch.equal(apply_flip_shift(x, draw_flip_shift(0, "t", 0, keys, padding=0, flip=False)), x)
    assert not torch.equal(apply_flip_shift(x, draw_flip_shift(0, "t", 0, keys, padding=0)), x)


def test_flip_shift_backward_is_the_adjoint():
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    transform = draw_flip_shift(1, "t", 0, keyed.keys_of(["a", "b", "c", "d"]), padding=3)
    assert torch.autograd.gradcheck(lambda x: apply_flip_shift(x, transform), (x,))


def test_affine_keeps_image_and_mask_together():
    mask = torch.zeros(8, 1, 32, 32)
    mask[:, :, 10:20, 8:24] = 1
    theta = draw_affine(0, "t", 0, keyed.keys_of([str(i) for i in range(8)]))
    image, moved = apply_affine(mask, theta), apply_affine(mask, theta, nearest=True)
    assert set(moved.unique().tolist()) <= {0.0, 1.0}
    assert ((image > 0.5) == (moved > 0.5)).float().mean() > 0.98
    assert not torch.equal(moved, mask)


def test_the_empty_share_of_a_small_batch_is_transformed_too():
    """One of several processes may have no image of the last batch."""
    x = torch.rand(0, 3, 8, 8, requires_grad=True)
    moved = apply_affine(x, draw_affine(0, "t", 0, keyed.keys_of([])))
    moved.sum().backward()
    assert moved.shape == x.shape == x.grad.shape
