"""Several CPU processes (gloo) release what one does, whatever their number, and also when it changes on the way."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch import distributed as dist

from medveil import batchnorm
from medveil.errors import UserError
from medveil.launch.errors import Interrupted, WorkerFailed
from medveil.launch.protect.job import ProtectJob, in_worker, run_protect
from medveil.launch.running import processes as launching
from medveil.launch.running.processes import Processes, joined, run_local
from medveil.launch.running.runtime import ProcessRuntime
from tests.launch import protecting

Meeting = tuple[str, int, int]

# Shares of unequal size, and last batches that are smaller than the others (UMed's of 6, SALM's of 1). SALM's fit makes
# whole steps of last digits: it agrees only where they do, in shards.
SMALL = {"width": 4, "depth": 2, "batch_size": 7}
JOBS: dict[str, tuple[str, dict[str, Any], int]] = {
    "umed": ("phantom:seg:20:16", {**SMALL, "epochs": 6}, 1),
    "veil": ("phantom:seg:20:16", {**SMALL, "noise": "generator", "steps": 9, "restart": 6}, 1),
    "salm": ("phantom:cls:21:16", {"steps": 9, "width": 4, "pgd_steps": 3, "batch_size": 10}, 4),
}

STEPS, STOP = 4, 2
# Noise that is kept belongs to a rank, and cannot be computed in shards: a gentle fit, which amplifies rounding less.
GENTLE = {"start": "stored", "release": "stored", "pgd_steps": 2, "transforms": 1, "width": 4, "learning_rate": 1e-4}


def job(name: str, out: Path) -> ProtectJob:
    data, settings, shards = JOBS[name]
    return ProtectJob(name, data, out, settings, seed=5, threads=1, device="cpu", shards=shards, quiet=True)


def keeping_job(out: Path, processes: int = 1) -> ProtectJob:
    options, data = {**GENTLE, "steps": STEPS, "batch_size": 10}, "phantom:cls:21:16"
    return ProtectJob("salm", data, out, options, seed=5, threads=1, device="cpu", processes=processes, quiet=True)


def normalised(x: Tensor, norm: nn.Module, slope: Tensor) -> list[Tensor]:
    """Output, input gradient, running statistics and parameter gradients of one pass in training."""
    x = x.clone().requires_grad_(True)
    out = norm(x)
    (out * slope).sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, norm.running_mean, norm.running_var, norm.weight.grad, norm.bias.grad]


def batch_of(count: int) -> tuple[Tensor, Tensor]:
    """Images [count, 4, 3, 3], and the slope of a loss in what becomes of them."""
    generator = torch.Generator().manual_seed(count)
    return 3 + 2 * torch.randn(count, 4, 3, 3, generator=generator), torch.randn(count, 4, 3, 3, generator=generator)


def normalise_shares(folder: Path, rank: int, world: int) -> None:
    """Leaves what global batch-norm makes of this rank's shares; of 1 sample a rank has none."""
    for count in (5, 1):
        x, slope = batch_of(count)
        mine = slice(count * rank // world, count * (rank + 1) // world)
        model = nn.Sequential(nn.BatchNorm2d(4))
        assert batchnorm.convert(model) is model
        results = normalised(x[mine], model[0], slope[mine])
        for gradient in results[4:]:
            dist.all_reduce(gradient)
        torch.save(results, folder / f"normalised-{count}-{rank}.pt")
    with pytest.raises(ValueError, match="more than one value"):
        batchnorm.convert(nn.BatchNorm1d(2))(torch.ones(int(rank == 0), 2))


def tell_each_other(processes: Processes) -> None:
    assert processes.highest([processes.rank, 1 - processes.rank]) == [1, 1]
    with pytest.raises(UserError, match="said on every rank"):
        processes.from_first(lambda: (_ for _ in ()).throw(UserError("said on every rank")))
    assert processes.from_first(lambda: {"rank": processes.rank}) == {"rank": 0}


def work_of_two(folder: Path, meeting: Meeting) -> None:
    """Everything that needs two processes, in one start of them; the last job goes on with one that three began."""
    address, rank, world = meeting
    with joined("cpu", meeting) as processes:
        normalise_shares(folder, rank, world)
        tell_each_other(processes)
    for name in JOBS:
        in_worker(job(name, folder / name), (address + name, rank, world))
    in_worker(keeping_job(folder / "on-2"), (address + "on", rank, world))
    with joined("cpu", (address + "end", rank, world)) as processes:
        if rank == 1:
            raise ZeroDivisionError("the first error")
        processes.barrier()


def stop_one_rank(out: Path, meeting: Meeting) -> None:
    step = ProcessRuntime.step

    def step_and_stop(self: ProcessRuntime, done: int, *args: object, **metrics: object) -> None:
        if done == STOP and self.rank == 1:
            self.stop.number = signal.SIGUSR2
        step(self, done, *args, **metrics)  # type: ignore[arg-type]

    ProcessRuntime.step = step_and_stop  # type: ignore[method-assign,assignment]
    in_worker(keeping_job(out), meeting)


class Done:
    """What became of the work of three, two and one processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with pytest.raises(Interrupted):
            run_local(stop_one_rank, folder / "cut", 3)
        for processes in (1, 2):
            shutil.copytree(folder / ".cut.run", folder / f".on-{processes}.run")
        try:
            run_local(work_of_two, folder, 2)
        except WorkerFailed as error:
            self.error = str(error)
        alone = folder / "alone"
        for work in [*(job(name, alone / name) for name in JOBS), keeping_job(alone / "keeping")]:
            run_protect(work)
        run_protect(keeping_job(folder / "on-1"))

    def differences(self, release: str, alone: str) -> np.ndarray:
        """By how many grey levels the release differs, pixel by pixel, from what one process releases."""
        one, other = (pixels(self.folder / name) for name in (f"alone/{alone}", release))
        return np.abs(one - other)


def weights(release: Path) -> Tensor:
    """Every number of what makes the noise, at the end of its fit."""
    last = max(release.parent.glob(f".{release.name}.run/*/checkpoints/*.pt"))
    state = torch.load(last, weights_only=True)["state"]
    return torch.cat(numbers(state["noise" if release.name == "veil" else "protector"]))


def numbers(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [number for key in state for number in numbers(state[key])]
    return [state.flatten().double()] if isinstance(state, Tensor) else []


def pixels(release: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file), dtype=int) for file in sorted((release / "images").rglob("*.png"))])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    with pytest.MonkeyPatch.context() as patch:
        # Forked from a server, not started anew: each of them would import torch for seconds.
        patch.setattr(launching.multiprocessing, "get_context", lambda _: protecting.forkserver())
        yield Done(tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize(("name", "eps"), [("umed", 4), ("veil", 4), ("salm", 8)])
def test_two_processes_release_what_one_does(done: Done, name: str, eps: int) -> None:
    difference = done.differences(name, name)
    assert (difference == 0).mean() >= (0.99 if JOBS[name][2] == 1 else 1)
    assert difference.max() <= 2 * eps
    drift = weights(done.folder / name) - weights(done.folder / "alone" / name)
    assert (drift.abs() < 1e-4).double().mean() >= 0.99
    runs = [
        next((out / f".{name}.run").glob("*/config.json")).parent.name for out in (done.folder, done.folder / "alone")
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_another_number_of_ranks_goes_on(done: Done, processes: int) -> None:
    """Three ranks began, and shared out the noise that is kept."""
    (log,) = done.folder.glob(f".on-{processes}.run/*/log.txt")
    assert f"goes on from step {STOP}" in log.read_text()
    difference = done.differences(f"on-{processes}", "keeping")
    assert (difference == 0).mean() >= 0.99
    assert difference.max() <= 2 * 8


@pytest.mark.parametrize("count", [5, 1])
def test_batch_norm_of_shares_is_that_of_the_whole(done: Done, count: int) -> None:
    x, slope = batch_of(count)
    whole = normalised(x, nn.BatchNorm2d(4), slope)
    ranks = [torch.load(done.folder / f"normalised-{count}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for part in (0, 1):
        torch.testing.assert_close(torch.cat([results[part] for results in ranks]), whole[part])
    for results in ranks:
        torch.testing.assert_close(results[2:], whole[2:])


def test_the_first_error_is_the_one_that_is_told(done: Done) -> None:
    assert "ZeroDivisionError: the first error" in done.error


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
