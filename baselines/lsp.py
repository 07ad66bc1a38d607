"""LSP, linearly separable patches (Yu et al., KDD 2022): "SP" in SALM's tables. A pattern of flat patches per class."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.config import LSPConfig
from medveil.baselines.model_free import ModelFree, grouped, normal
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.method import MethodSettings
from medveil.runtime import Runtime


class LSP(ModelFree):
    """Patch values drawn as scikit-learn's ``make_classification`` draws points of one cluster per class.

    The centre of a class is a corner of a hypercube, a sample's point lies about it, spread by a random matrix of its
    class. Unlike there each point is a function of (seed, class, id): no stream, so no order of samples to keep.
    """

    name: ClassVar[str] = LSPConfig.name
    Config: ClassVar[type[MethodSettings]] = LSPConfig

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "LSP":
        """Note the task. Raises UserError when there are too few patches for the classes to differ."""
        rows, columns, _ = self._grid((data.channels, *data.size))
        patches = data.channels * rows * columns
        if data.task == "classification" and 2**patches < 4 * data.num_classes:
            raise UserError(f"{patches} patches cannot tell {data.num_classes} classes apart: give a smaller --patch")
        super().fit(data, runtime)
        return self

    def pattern(self, names: Sequence[str], keys: Tensor, shape: tuple[int, int, int]) -> Tensor:
        rows, columns, patch = self._grid(shape)
        features = shape[0] * rows * columns
        points = torch.empty(len(names), features, device=keys.device)
        for name, places in grouped(names).items():
            own = keyed.keys_of([name], keys.device)
            points[places] = self._centre(name, features, keys.device)
            if self.config.wise == "sample":
                matrix = 2 * keyed.uniform(self.config.seed, "lsp matrix", 0, own, (features, features))[0] - 1
                points[places] += normal(self.config.seed, f"lsp point {name}", 0, keys[places], (features,)) @ matrix
        laid = points.view(len(names), shape[0], rows, columns)
        laid = laid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        return laid[..., : shape[1], : shape[2]]

    def _grid(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Rows and columns of patches that cover an image of ``shape`` (C, H, W), and the side of a patch."""
        side = min(shape[1:])
        patch: int = self.config.patch or max(1, side // 4 if side <= 32 else round(side / 7))
        return -(-shape[1] // patch), -(-shape[2] // patch), patch

    def _centre(self, name: str, features: int, device: torch.device) -> Tensor:
        """The corner of class ``name``, float [features]; the corners of a classification set's classes differ."""
        names = [str(number) for number in range(self.num_classes)] if self.task == "classification" else [name]
        if self.task == "segmentation":
            names = ["outside", "inside"]
        taken: dict[tuple[int, ...], str] = {}
        for one in names:
            draw = 0
            while (corner := self._corner(one, draw, features)) in taken:
                draw += 1
            taken[corner] = one
        mine = next(corner for corner, owner in taken.items() if owner == name)
        return self.config.separation * torch.tensor(mine, dtype=torch.float32, device=device)

    def _corner(self, name: str, draw: int, features: int) -> tuple[int, ...]:
        bits = keyed.words(self.config.seed, "lsp corner", draw, keyed.keys_of([name]), (features,))[0] & 1
        return tuple((2 * bits - 1).tolist())
