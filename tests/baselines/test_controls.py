"""The controls: random signs at the bound on UMed's support, and no protection at all."""

import pytest
import torch

from medveil.baselines import RandomSigns, Unprotected
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.quantise import quantise
from medveil.umed import UMed


def lesions():
    images = torch.randint(20, 230, (6, 1, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
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
