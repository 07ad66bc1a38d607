"""A set that is held on the device and one that is read ahead give the same batches."""

import torch

from medveil.dataset import ArrayDataset
from medveil.feed import Feed


def test_batches_read_ahead_equal_batches_held() -> None:
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    data = ArrayDataset(images, images // 128, [f"id{i}" for i in range(20)], "segmentation", 1)
    held, streamed = Feed(data, torch.device("cpu")), Feed(data, torch.device("cpu"), held_bytes=0)
    groups = [[3, 1], [7], [0, 19, 4], [2], [5]]
    assert held.held is not None
    assert streamed.held is None
    for feed in (held, streamed):
        found = list(feed.along(enumerate(groups)))
        assert [number for number, _ in found] == [0, 1, 2, 3, 4]
        for (_, samples), expected in zip(found, held.batches(groups), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(samples, expected, strict=True))
