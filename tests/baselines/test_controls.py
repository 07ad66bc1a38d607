"""The controls: patterns on a region, matched to a PSNR, and no protection at all."""

import pytest
import torch

from medveil.baselines import Pattern, RandomSigns, Unprotected
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.kernels import contour_band, texture_map
from medveil.metrics import mean_psnr, psnr
from medveil.quantise import quantise
from medveil.umed import UMed


def lesions(channels=1):
    images = torch.randint(
        20, 230, (6, channels, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    masks = torch.zeros(6, 1, 20, 20, dtype=torch.uint8)
    masks[:, :, 5:14, 4:12] = 1
    return ArrayDataset(images, masks, [f"a/{i}" for i in range(6)], "segmentation", 1)


def test_random_signs_sit_at_the_bound_on_umeds_support():
    data = lesions()
    images, masks, ids = data.read(range(6))
    control = RandomSigns().fit(data)
    saved = quantise(control.perturb(images, masks, ids), images, control.budget().levels)
    change = saved.int() - images.int()
    support = UMed().support(masks)
    assert torch.equal(change.abs(), 4 * support.int())
    assert abs(change[support].float().mean()) < 1


def test_random_signs_follow_the_id_and_the_seed():
    data = lesions()
    images, masks, ids = data.read(range(6))
    first = RandomSigns(seed=1).fit(data).perturb(images, masks, ids)
    turned = RandomSigns(seed=1).fit(data).perturb(images.flip(0), masks.flip(0), ids[::-1]).flip(0)
    assert torch.equal(first, turned)
    assert not torch.equal(first, RandomSigns(seed=2).fit(data).perturb(images, masks, ids))


def test_no_protection_saves_the_same_bytes():
    images, masks, ids = lesions().read(range(6))
    assert torch.equal(quantise(Unprotected().fit(lesions()).perturb(images, masks, ids), images, 0), images)


def test_a_region_of_interest_needs_masks():
    data = ArrayDataset(lesions().images, torch.zeros(6, dtype=torch.int64), lesions().ids, "classification", 2)
    with pytest.raises(UserError, match="region"):
        RandomSigns(region="roi").fit(data)


def test_random_signs_of_a_share_of_the_elements():
    data = lesions()
    images, masks, ids = data.read(range(6))
    control = RandomSigns(k=30, region="image").fit(data)
    change = quantise(control.perturb(images, masks, ids), images, control.budget().levels).int() - images.int()
    assert control.budget().changed == 0.3
    assert change.abs().flatten(1).count_nonzero(1).tolist() == [120] * 6  # of 400
    assert not torch.equal(change[0] != 0, change[1] != 0)


def pattern_change(data, **options):
    """What a pattern changes in the saved images, int32 grey levels [N, C, H, W]."""
    images, masks, ids = data.read(range(len(data)))
    control = Pattern(**options).fit(data)
    return quantise(control.perturb(images, masks, ids), images, control.budget().levels).int() - images.int()


def moved_lesions():
    """Each image has its disc elsewhere, one has none."""
    data = lesions()
    masks = torch.zeros_like(data.targets)
    for i in range(5):
        masks[i, :, 2 + 2 * i : 8 + 2 * i, 3:9] = 1
    return ArrayDataset(data.images, masks, data.ids, "segmentation", 1)


def test_a_fixed_pattern_is_the_same_for_every_image_and_random_signs_are_not():
    inside = lesions().targets.bool()
    fixed, random = (pattern_change(lesions(), pattern=name) for name in ("fixed-signs", "signs"))
    assert torch.equal(fixed[0], fixed[1]) and set(fixed[inside].tolist()) == {-4, 4}
    assert not torch.equal(random[0], random[1])
    assert set(pattern_change(lesions(), pattern="constant")[inside].tolist()) == {4}


@pytest.mark.parametrize("cell", [1, 2, 4])
def test_a_checkerboard_changes_its_sign_every_cell(cell):
    change = pattern_change(lesions(), pattern="checkerboard", cell=cell, region="image")[0, 0]
    squares = change.view(20 // cell, cell, 20 // cell, cell).transpose(1, 2).flatten(2)
    assert torch.equal(squares, squares[..., :1].expand_as(squares))
    signs = squares[..., 0]
    assert torch.equal(signs[1:], -signs[:-1]) and torch.equal(signs[:, 1:], -signs[:, :-1])


@pytest.mark.parametrize(("pattern", "axis"), [("rows", 0), ("columns", 1)])
def test_stripes_change_their_sign_along_one_axis_alone(pattern, axis):
    change = pattern_change(lesions(), pattern=pattern, cell=2, region="image")[0, 0].movedim(axis, 0)
    assert torch.equal(change, change[:, :1].expand_as(change))
    assert torch.equal(change[2:], -change[:-2]) and torch.equal(change[::2], change[1::2])


@pytest.mark.parametrize("pattern", ["checkerboard", "signs", "fixed-signs", "rows"])
def test_two_scales_are_the_mean_of_cells_and_of_cells_twice_as_large(pattern):
    fine, coarse = (
        pattern_change(lesions(), pattern=pattern, cell=cell, region="image", eps="4/255") for cell in (2, 4)
    )
    both = pattern_change(lesions(), pattern=pattern, cell=2, scales=2, region="image", eps="8/255")
    assert torch.equal(both, fine + coarse)
    assert set(both.flatten().tolist()) == {-8, 0, 8}


def test_cells_of_colour_are_green_against_red_and_blue_over_grey_cells():
    fine, coarse = (
        pattern_change(lesions(3), pattern="checkerboard", cell=cell, region="image", eps="4/255") for cell in (2, 4)
    )
    both = {"pattern": "checkerboard", "cell": 2, "region": "image", "eps": "8/255"}
    red, green, blue = pattern_change(lesions(3), colour_cell=4, **both).movedim(1, 0)
    assert torch.equal(red, blue) and torch.equal(red, (fine + coarse)[:, 0])
    assert torch.equal(green, (fine - coarse)[:, 1])
    assert torch.equal(pattern_change(lesions(), colour_cell=4, **both), pattern_change(lesions(), scales=2, **both))


def test_cells_of_colour_are_of_regular_patterns():
    with pytest.raises(UserError, match="checkerboard, rows, columns: leave it away"):
        Pattern(pattern="signs", colour_cell=4)


def test_signs_of_a_cell_are_one_sign():
    change = pattern_change(lesions(), pattern="signs", cell=4, region="image")[:, 0]
    squares = change.view(6, 5, 4, 5, 4).transpose(2, 3).flatten(3)
    assert torch.equal(squares, squares[..., :1].expand_as(squares))
    assert not torch.equal(change[0], change[1])


def test_a_constant_has_no_cells():
    with pytest.raises(UserError, match="no cells"):
        Pattern(pattern="constant", cell=4)


def test_umeds_bound_is_eps_on_the_contour_and_less_inside():
    images, masks, _ = lesions().read(range(6))
    change = pattern_change(lesions(), pattern="constant", bound="lbp")
    texture = texture_map(images)
    expected = 4 * torch.where(contour_band(masks, 1), 1.0, texture * masks)
    assert (change - expected).abs().max() <= 0.5 + 1e-3


def test_anothers_mask_is_never_the_own_nor_an_empty_one():
    data = moved_lesions()
    changed = pattern_change(data, mask="another", region="roi") != 0
    own = data.targets.bool()
    for i in range(6):
        assert [j for j in range(6) if torch.equal(changed[i], own[j]) and j != i and own[j].any()]
    assert len({tuple(c.flatten().tolist()) for c in changed[:5]}) == 5
    one = ArrayDataset(data.images[:2], data.targets[4:], data.ids[:2], "segmentation", 1)
    with pytest.raises(UserError, match="two images"):
        Pattern(mask="another").fit(one)


def test_anothers_mask_needs_a_region_that_is_drawn_from_it():
    with pytest.raises(UserError, match=r"mask another.*region image"):
        Pattern(mask="another", region="image")


def test_a_pattern_outlives_its_fit():
    data = moved_lesions()
    images, masks, ids = data.read([4, 1])
    control = Pattern(mask="another", psnr=44).fit(data)
    other = Pattern(mask="another", psnr=44)
    other.load_state_dict(control.state_dict())
    assert torch.equal(control.perturb(images, masks, ids), other.perturb(images, masks, ids))
    assert other.budget() == control.budget()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"pattern": "checkerboard", "cell": 2}, 46.3),
        ({"pattern": "constant", "bound": "lbp"}, 38.0),
        ({"region": "image"}, 49.1),
        ({"region": "image"}, 33.0),
        ({"mask": "another", "region": "contour"}, 50.0),
    ],
)
def test_the_saved_images_meet_the_psnr_that_was_asked_for(options, wanted):
    """Below and beyond the bound, and below a level; the pattern stays the pattern."""
    data = moved_lesions()
    change = pattern_change(data, **options, psnr=wanted)
    saved = (data.images.int() + change).to(torch.uint8)
    assert mean_psnr(map(psnr, data.images, saved)) == pytest.approx(wanted, abs=0.01)
    if options.get("pattern") == "checkerboard":
        flat = pattern_change(data, **options)
        assert not (change * flat < 0).any()


def test_a_psnr_out_of_reach_is_told():
    with pytest.raises(UserError, match="psnr"):
        Pattern(psnr=3).fit(lesions())


@pytest.mark.parametrize("options", [{"mask": "another"}, {"bound": "lbp"}])
def test_controls_that_need_masks_say_so(options):
    data = ArrayDataset(lesions().images, torch.zeros(6, dtype=torch.int64), lesions().ids, "classification", 2)
    with pytest.raises(UserError, match="masks"):
        Pattern(**options).fit(data)
