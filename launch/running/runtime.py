"""Where a fit runs: one or many processes, with checkpoints, signals, metrics and progress."""

import io
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from medveil import batchnorm
from medveil.errors import UserError
from medveil.kernels import nan_seen
from medveil.launch.errors import Interrupted
from medveil.launch.reading import open_regular
from medveil.launch.running.allocator import keep_freed_memory
from medveil.launch.running.bfloat import say_if_slow
from medveil.launch.running.machine import CHECKPOINT_SECONDS, Precision
from medveil.launch.running.processes import Processes, handling
from medveil.launch.running.progress import Progress
from medveil.launch.running.runs import Run
from medveil.runtime import State
from medveil.shards import convert as compute_in_shards
from medveil.shards import sum_over_ranks

_NEW_NAME = "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters
_BUFFERS_STAY: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}
"""Running statistics are equal on all ranks already: nothing to send. (torch 2.15 renamed the argument.)"""

DIVERGED = "the fit diverged (a gradient is no number): give a lower learning rate or a smaller step size"

_KEPT_METRICS = 256
"""Steps whose metrics wait on the device before they are read together."""


class StopFlag:
    """Remembers the first signal that asks to stop; the second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


class ProcessRuntime:
    """:class:`medveil.runtime.Runtime` over processes and a run directory. Made by :func:`running`.

    ``run`` is owned by rank 0 and None on other ranks. ``every``: seconds between checkpoints. ``shards``: of a global
    batch (:mod:`medveil.shards`); a multiple of the number of processes, or 1.
    """

    def __init__(
        self,
        processes: Processes,
        run: Run | None,
        precision: Precision,
        progress: Progress,
        stop: StopFlag,
        every: float = CHECKPOINT_SECONDS,
        shards: int = 1,
    ) -> None:
        self.processes, self.run, self.precision = processes, run, precision
        self.progress, self.stop, self.every = progress, stop, every
        self.in_shards = shards > 1
        self.local_shards = max(1, shards // processes.world)
        self.on_save: Callable[[], None] | None = None
        """Called after each checkpoint."""
        self._saved = time.monotonic()
        self._waiting: list[tuple[int, dict[str, Tensor]]] = []

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def rank(self) -> int:
        return self.processes.rank

    @property
    def world(self) -> int:
        return self.processes.world

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if self.world == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def wrap(self, module: nn.Module) -> nn.Module:
        if self.in_shards:
            module = compute_in_shards(module, self.local_shards)
        elif self.world == 1:
            return module
        if self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
            return DistributedDataParallel(module, device_ids=[self.device], **_BUFFERS_STAY)
        # Not the gradients' group: these exchanges happen inside backward, between those of the gradients.
        module = batchnorm.convert(module, self.processes.group, self.local_shards)
        if self.world == 1:
            return module
        parallel = DistributedDataParallel(module, **_BUFFERS_STAY)
        if self.in_shards:
            parallel.register_comm_hook(None, _mean_over_ranks)
        return parallel

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def restore(self) -> State | None:
        found = self.processes.from_first(self._newest)
        self.progress.begin(0 if found is None else found["step"])
        if found is None:
            return None
        state: State = _load(Path(found["path"]))["state"]
        return state

    def step(self, done: int, total: int, state: Callable[[], State], **metrics: Tensor) -> None:
        now = time.monotonic()
        if metrics:
            self._waiting.append((done, {name: value.detach() for name, value in metrics.items()}))
        last = done == total
        stop, save, show = self.processes.highest(
            [
                self.stop.number,
                int(last or now - self._saved >= self.every),
                int(last or self.progress.due(now) or len(self._waiting) >= _KEPT_METRICS),
            ]
        )
        if show or save or stop:
            values = self._read_metrics()
            if show:
                line = self.progress.show(done, total, values)
                if self.run is not None:
                    self.run.log(line)
        if save or stop:
            self._save(done, total, state())
        if stop:
            raise Interrupted(stop, f"at step {done} of {total}, which is saved")

    def poll(self, where: str) -> None:
        """Raise :class:`Interrupted` on every rank if one was asked to stop; every rank must call it."""
        (stop,) = self.processes.highest([self.stop.number])
        if stop:
            raise Interrupted(stop, where)

    def check_stop(self, where: str) -> None:
        """Raise :class:`Interrupted` if this process was asked to stop, whatever the others do."""
        if self.stop.number:
            raise Interrupted(self.stop.number, where)

    def _newest(self) -> dict[str, Any] | None:
        assert self.run is not None
        for path in self.run.checkpoints():
            try:
                step = int(_load(path)["step"])
            except Exception as error:  # whatever torch raises for bytes that are no checkpoint
                self.run.log(f"{path.name} is unreadable and passed over: {error}")
                continue
            self.run.forget_metrics_after(step)
            self.run.log(f"goes on from step {step}")
            return {"path": str(path), "step": step}
        self.run.forget_metrics_after(-1)
        return None

    def _save(self, done: int, total: int, state: State) -> None:
        # Every rank was asked for its state (it may have to be gathered); rank 0 writes.
        if self.run is not None:
            content = io.BytesIO()
            torch.save({"step": done, "total": total, "state": state}, content)
            self.run.save_checkpoint(done, content.getvalue())
        if self.on_save is not None:
            self.on_save()
        self._saved = time.monotonic()

    def _read_metrics(self) -> dict[str, float]:
        """Read what waits, append it to the run's metrics, and return the newest step's."""
        if not self._waiting:
            return {}
        names = list(self._waiting[-1][1])
        table = torch.stack([torch.stack([values[n].double() for n in names]) for _, values in self._waiting])
        # The losses of the ranks are scaled so that their mean is the loss of the global batch.
        rows = self.processes.mean(table.cpu()).tolist()
        records = [
            {"step": done, **dict(zip(names, row, strict=True))}
            for (done, _), row in zip(self._waiting, rows, strict=True)
        ]
        self._waiting.clear()
        if self.run is not None:
            self.run.append_metrics(records)
        # A GPU only notes what a CPU refuses at once; any rank may have met it.
        (diverged,) = self.processes.highest([int(nan_seen(self.device))])
        if diverged:
            raise UserError(DIVERGED)
        return dict(zip(names, rows[-1], strict=True))


@contextmanager
def running(
    processes: Processes,
    run: Run | None,
    precision: Precision,
    label: str,
    every: float = CHECKPOINT_SECONDS,
    quiet: bool = False,
    shards: int = 1,
) -> Iterator[ProcessRuntime]:
    """A runtime whose stop flag listens to SIGINT, SIGTERM, SIGUSR2 and SIGHUP within the context."""
    say_if_slow(precision, processes.device)
    keep_freed_memory()
    stop, outer = StopFlag(), signal.getsignal(signal.SIGTERM)
    progress = Progress(label, quiet=quiet or processes.rank > 0)
    with handling(stop):
        if isinstance(outer, StopFlag):
            # Asked to stop before this context: then stop at its first step boundary.
            stop.number = stop.number or outer.number
        try:
            yield ProcessRuntime(processes, run, precision, progress, stop, every, shards)
        finally:
            progress.close()


def threads_by_default() -> int:
    """Threads per process when none are asked for: what torch would take, at most 4."""
    return min(torch.get_num_threads(), 4)


def _mean_over_ranks(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """The mean of a bucket of gradients, added in :mod:`medveil.shards`' order."""
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(sum_over_ranks(bucket.buffer(), None) / dist.get_world_size())
    return future


def _load(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return checkpoint
