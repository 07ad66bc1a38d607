"""What the user typed, and the split into training and test."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from medveil.dataset import ArrayDataset, Subset
from medveil.errors import UserError
from medveil.launch.data import open_data, split_holdout
from medveil.launch.data.groups import groups_of


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


def test_a_group_stays_on_one_side_of_a_holdout(tmp_path: Path) -> None:
    zeros = torch.zeros(60, 1, 4, 4, dtype=torch.uint8)
    ids = [f"patient{i % 7}_{i}" for i in range(60)]
    data = ArrayDataset(zeros, torch.zeros(60, dtype=torch.int64), ids, "classification", 2)
    table = tmp_path / "patients.csv"
    table.write_text("group,id\n" + "".join(f"{sample.partition('_')[0]},{sample}\n" for sample in ids))
    groups = groups_of(ids, r"^([^_]+)_")
    assert groups == groups_of(ids, str(table)) and len(set(groups.values())) == 7
    for seed in range(5):
        train, test = split_holdout(data, 0.2, seed, groups)
        assert sorted(train + test) == list(range(60))
        assert not {groups[ids[i]] for i in train} & {groups[ids[i]] for i in test}
        assert 12 <= len(test) <= 18
    # Each in a group of its own is as without groups.
    assert split_holdout(data, 0.2, 7, {sample: sample for sample in ids}) == split_holdout(data, 0.2, 7)
    with pytest.raises(UserError, match="60 images in 1 groups"):
        split_holdout(data, 0.2, 0, groups_of(ids, "patient"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("(", "neither a CSV file nor a regular expression"),
        ("^b", "a_1 has no group, and 1 more"),
        ("none.csv", "none.csv does not exist"),
        ("id,group\na_1,x\n", "a_2 has no group"),
        ("id,group\na_1,x\na_1,y\n", "line 3: a_1 has two values of group"),
        ("id,patient\na_1,x\n", "has no column group: begin it with the line id,group"),
        ("id,group\na_1,\n", "line 2: the columns id and group must be filled"),
    ],
)
def test_groups_that_are_none_are_named(told: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "," in told:
        (tmp_path / "t.csv").write_text(told)
        told = "t.csv"
    with pytest.raises(UserError, match=re.escape(said)):
        groups_of(["a_1", "a_2"], told)


@pytest.mark.parametrize(("count", "fraction", "said"), [(3, 0.1, "3 images are too few"), (1, 0.5, "too few")])
def test_too_few_to_split(count: int, fraction: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_holdout(_dataset(count), fraction, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, float("nan")])
def test_a_holdout_is_a_share(fraction: float) -> None:
    with pytest.raises(UserError, match="is not a share"):
        split_holdout(_dataset(10), fraction, 0)
