"""A small segmentation set of discs that grow, for tests of several protectors."""

import torch

from medveil.dataset import ArrayDataset


def disks(count: int = 10, size: int = 24, channels: int = 1) -> ArrayDataset:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = torch.arange(count).view(-1, 1, 1, 1) * 0.6 + 3
    masks = ((rows - 11) ** 2 + (columns - 12) ** 2 < radius**2).to(torch.uint8)
    grain = torch.randint(0, 30, (count, channels, size, size), generator=torch.Generator().manual_seed(0))
    images = (80 + 60 * masks + grain).to(torch.uint8)
    return ArrayDataset(images, masks, [f"disk/{i}" for i in range(count)], "segmentation", 1)
