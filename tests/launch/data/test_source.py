"""What the user typed, and the split into training and test."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medveil.dataset import ArrayDataset, Subset
from medveil.errors import UserError
from medveil.launch.data import open_data, split_holdout


def test_what_is_no_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, said in [
        ("gone", "gone does not exist"),
        ("gone.npz", "does not exist"),
        ("x.txt", "neither a folder nor an .npz"),
        ("empty", "empty holds no data set"),
    ]:
        with pytest.raises(UserError, match=said):
            open_data(str(tmp_path / name))
    with pytest.raises(UserError, match="leave out --splits"):
        open_data("phantom:seg:4", splits=("train", "val"))


def _dataset(count: int) -> ArrayDataset:
    zeros = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    return ArrayDataset(
        zeros, torch.zeros(count, dtype=torch.int64), [f"s{i}" for i in range(count)], "classification", 2
    )


def test_holdout_is_a_function_of_seed_and_ids() -> None:
    data = _dataset(50)
    train, test = split_holdout(data, 0.2, 7)
    assert len(test) == 10
    assert sorted(train + test) == list(range(50))
    assert split_holdout(data, 0.2, 7) == (train, test)
    assert split_holdout(data, 0.2, 8) != (train, test)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = Subset(data, order)
    _, again = split_holdout(shuffled, 0.2, 7)
    assert {shuffled.ids[i] for i in again} == {data.ids[i] for i in test}


@pytest.mark.parametrize(("count", "fraction", "said"), [(3, 0.1, "3 images are too few"), (1, 0.5, "too few")])
def test_too_few_to_split(count: int, fraction: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_holdout(_dataset(count), fraction, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, float("nan")])
def test_a_holdout_is_a_share(fraction: float) -> None:
    with pytest.raises(UserError, match="is not a share"):
        split_holdout(_dataset(10), fraction, 0)
