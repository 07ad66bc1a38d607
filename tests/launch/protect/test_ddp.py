"""Two CPU processes (gloo) release what one does; and the batch-norm behind that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed as dist
from torch import nn

from medveil import batchnorm
from medveil.errors import UserError
from medveil.launch.errors import WorkerFailed
from medveil.launch.protect.job import ProtectJob, _in_worker, run_protect
from medveil.launch.running.processes import joined, run_local

Meeting = tuple[str, int, int]

# Shares of unequal size, and last batches that are smaller than the others (UMed's of 6, SALM's of 1). SALM's fit makes
# whole steps of last digits: it agrees only where they do, in shards.
JOBS: dict[str, tuple[str, dict[str, Any], int]] = {
    "umed": ("phantom:seg:20:16", {"epochs": 10, "width": 4, "depth": 2, "batch_size": 7}, 1),
    "veil": ("phantom:seg:20:16", {"steps": 20, "width": 4, "depth": 2, "batch_size": 7, "restart": 6}, 1),
    "salm": ("phantom:cls:21:16", {"steps": 30, "width": 4, "pgd_steps": 4, "batch_size": 10}, 4),
}


def job(name: str, out: Path, **options: Any) -> ProtectJob:
    data, settings, shards = JOBS[name]
    settings = {**settings, **options}
    return ProtectJob(name, data, out, settings, seed=5, threads=1, device="cpu", shards=shards, quiet=True)


def normalised(x: torch.Tensor, norm: nn.Module, slope: torch.Tensor) -> list[torch.Tensor]:
    """Output, input gradient, running statistics and parameter gradients of one pass in training."""
    x = x.clone().requires_grad_(True)
    out = norm(x)
    (out * slope).sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, norm.running_mean, norm.running_var, norm.weight.grad, norm.bias.grad]


def same_on_every_share(folder: Path, rank: int, world: int) -> None:
    """Global batch-norm on shares against torch's own on the whole batch; with 1 sample a rank has none."""
    generator = torch.Generator().manual_seed(0)
    for count in (5, 1):
        x = 3 + 2 * torch.randn(count, 4, 3, 3, generator=generator)
        slope = torch.randn(count, 4, 3, 3, generator=generator)
        whole = normalised(x, nn.BatchNorm2d(4), slope)
        mine = slice(count * rank // world, count * (rank + 1) // world)
        model = nn.Sequential(nn.BatchNorm2d(4))
        assert batchnorm.convert(model) is model
        local = normalised(x[mine], model[0], slope[mine])
        for gradient in local[4:]:
            dist.all_reduce(gradient)
        for i, (a, b) in enumerate(zip(whole, local, strict=True)):
            torch.testing.assert_close(a[mine] if i < 2 else a, b, msg=lambda m, i=i: f"part {i}: {m}")
    with pytest.raises(ValueError, match="more than one value"):
        batchnorm.convert(nn.BatchNorm1d(2))(torch.ones(int(rank == 0), 2))
    (folder / f"batchnorm-{rank}").touch()


def two_processes(folder: Path, meeting: Meeting) -> None:
    """Everything that needs two processes, in one start of them."""
    address, rank, world = meeting
    with joined("cpu", meeting) as processes:
        same_on_every_share(folder, rank, world)
        total = processes.highest([rank, 1 - rank])
        assert total == [1, 1]
        with pytest.raises(UserError, match="said on every rank"):
            processes.from_first(lambda: (_ for _ in ()).throw(UserError("said on every rank")))
        assert processes.from_first(lambda: {"rank": processes.rank}) == {"rank": 0}
    for name in JOBS:
        _in_worker(job(name, folder / name), (address + name, rank, world))


def pixels(release: Path) -> np.ndarray:
    files = sorted((release / "images").rglob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Releases of one process and of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    run_local(two_processes, two, 2)
    for name in JOBS:
        run_protect(job(name, one / name))
    return one, two


@pytest.mark.parametrize(("name", "eps"), [("umed", 4), ("veil", 4), ("salm", 8)])
def test_two_processes_release_what_one_does(pair: tuple[Path, Path], name: str, eps: int) -> None:
    one, two = (pixels(folder / name) for folder in pair)
    difference = np.abs(one - two)
    assert (difference == 0).mean() >= (0.99 if JOBS[name][2] == 1 else 1)
    assert difference.max() <= 2 * eps
    runs = [next((folder / f".{name}.run").glob("*/config.json")).parent.name for folder in pair]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("number", [0, 3])
def test_numbers_of_shards_that_make_no_tree_are_refused(number: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shards"):
        run_protect(ProtectJob("none", "phantom:cls:4:16", tmp_path / "out", seed=0, device="cpu", shards=number))


@pytest.mark.parametrize(("method", "options"), [("em", {}), ("salm", {"start": "stored"})])
def test_methods_that_share_samples_out_by_owner_are_refused_shards(
    method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--shards"):
        run_protect(ProtectJob(method, "phantom:cls:4:16", tmp_path / "out", options, seed=0, device="cpu", shards=2))


def test_batch_norm_of_shares_is_that_of_the_whole(pair: tuple[Path, Path]) -> None:
    assert {path.name for path in pair[1].glob("batchnorm-*")} == {"batchnorm-0", "batchnorm-1"}


def fails_on_one(_: None, meeting: Meeting) -> None:
    with joined("cpu", meeting) as processes:
        if processes.rank == 1:
            raise ZeroDivisionError("the first error")
        processes.barrier()


def test_the_first_error_is_the_one_that_is_told() -> None:
    with pytest.raises(WorkerFailed, match="ZeroDivisionError: the first error"):
        run_local(fails_on_one, None, 2)
