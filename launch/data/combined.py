"""Several data sets as one to fit on: classes renumbered, images of one form. Never a release."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medveil.dataset import Batch, Dataset, Task, View
from medveil.launch.data.images import resize


@dataclass(frozen=True)
class Formed(View):
    """``data`` with images of the form (channels, height, width) of another set: grey is repeated, colour becomes
    rounded luma, sizes change by antialiased bilinear filtering. ``prefix`` goes before its ids. Targets stay as they
    are, so masks must have the size already.
    """

    form: tuple[int, int, int]
    prefix: str

    @property
    def channels(self) -> int:
        return self.form[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.form[1:]

    @property
    def ids(self) -> Sequence[str]:
        return [self.prefix + sample for sample in self.data.ids]

    def read(self, indices: Sequence[int]) -> Batch:
        images, targets, ids = self.data.read(indices)
        images = images if images.shape[-2:] == self.size else torch.stack([self._resized(image) for image in images])
        return Batch(self._coloured(images), targets, [self.prefix + sample for sample in ids])

    def _resized(self, image: Tensor) -> Tensor:
        pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy()
        small = np.array(resize(pixels, self.size))
        return torch.from_numpy(small[None] if small.ndim == 2 else small.transpose(2, 0, 1).copy())

    def _coloured(self, images: Tensor) -> Tensor:
        if images.shape[1] == self.channels:
            return images
        if self.channels == 3:
            return images.expand(-1, 3, -1, -1).contiguous()
        red, green, blue = images.float().unbind(1)
        return (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8)[:, None]


@dataclass(frozen=True)
class Combined:
    """The samples of ``parts`` (classification, of one form) one after the other.

    ``numbers``: for each part, what each of its classes is called here.
    """

    parts: tuple[Dataset, ...]
    numbers: tuple[tuple[int, ...], ...]
    num_classes: int

    @property
    def task(self) -> Task:
        return "classification"

    @property
    def ids(self) -> Sequence[str]:
        return [sample for part in self.parts for sample in part.ids]

    @property
    def channels(self) -> int:
        return self.parts[0].channels

    @property
    def size(self) -> tuple[int, int]:
        return self.parts[0].size

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def read(self, indices: Sequence[int]) -> Batch:
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        asked = np.asarray(indices, dtype=np.int64)
        owner = np.searchsorted(starts, asked, side="right") - 1
        images = torch.empty((len(asked), self.channels, *self.size), dtype=torch.uint8)
        targets = torch.empty(len(asked), dtype=torch.int64)
        ids = [""] * len(asked)
        for number, part in enumerate(self.parts):
            places = np.flatnonzero(owner == number)
            if not len(places):
                continue
            batch = part.read((asked[places] - starts[number]).tolist())
            images[places], targets[places] = batch.images, torch.tensor(self.numbers[number])[batch.targets]
            for place, sample in zip(places.tolist(), batch.ids, strict=True):
                ids[place] = sample
        return Batch(images, targets, ids)
