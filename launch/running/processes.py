"""The processes of one job: alone, under torchrun or SLURM (RANK and WORLD_SIZE are set), or started here."""

import functools
import itertools
import json
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from medveil.errors import UserError
from medveil.launch.errors import Interrupted, VerificationFailed, WorkerFailed
from medveil.launch.ranks import world_size
from medveil.launch.running.machine import Device

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)

_TOLD = (UserError, OSError, Interrupted, VerificationFailed, ImportError, MemoryError)
"""What is told in one line, whichever process it came from."""

_GRACE_SECONDS = 20.0
"""How long the other processes may take to end after one has failed."""


_MEETINGS = itertools.count()
"""One number for each time that the processes of a job meet; they count alike, as they do the same jobs in turn."""


class Processes:
    """This process among those of the job. Small values travel over gloo, so that a GPU is never waited for.

    ``group`` is the gloo group for them, None when alone.
    """

    def __init__(
        self, device: torch.device, rank: int = 0, world: int = 1, group: dist.ProcessGroup | None = None
    ) -> None:
        self.device, self.rank, self.world, self.group = device, rank, world, group

    def highest(self, values: list[int]) -> list[int]:
        """Each value's maximum over all ranks."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.group)
        return tensor.tolist()

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a CPU tensor over all ranks."""
        if self.world > 1:
            dist.all_reduce(values, group=self.group)
        return values / self.world

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What ``make`` returns on rank 0 (JSON values), on every rank. A UserError there is raised on every rank."""
        if self.world == 1:
            return make()
        message: dict[str, Any] = {}
        if self.rank == 0:
            try:
                message = {"value": make()}
            except UserError as error:
                message = {"error": str(error)}
        content = self._broadcast(json.dumps(message).encode())
        message = json.loads(content)
        if "error" in message:
            raise UserError(message["error"])
        return message["value"]

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier(group=self.group)

    def _broadcast(self, content: bytes) -> bytes:
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0, group=self.group)
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.rank == 0 else None
        if data is None:
            data = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self.group)
        return data.numpy().tobytes()


def pick_device(wanted: Device, local_rank: int = 0) -> torch.device:
    """``auto`` is CUDA where there is one. Raises UserError when CUDA is asked for and missing."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no GPU that torch can use; take --device cpu")
    # One visible GPU per process (SLURM) and all GPUs visible to all (torchrun) both come out right.
    return torch.device("cuda", local_rank % torch.cuda.device_count())


@functools.cache
def _store_of_environment() -> tuple[Store, int, int]:
    """What torchrun's or SLURM's variables name: one connection as long as the process lives."""
    return next(rendezvous("env://"))


@contextmanager
def joined(wanted: Device = "auto", meeting: tuple[str, int, int] | None = None) -> Iterator[Processes]:
    """This process's place in the job: ``meeting`` (address, rank, world), else the environment's, else alone."""
    if meeting is None and world_size() == 1:
        yield Processes(pick_device(wanted))
        return
    store, rank, world = _store_of_environment() if meeting is None else next(rendezvous(*meeting))
    device = pick_device(wanted, int(os.environ.get("LOCAL_RANK", rank)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # A store outlives a group, and a later group of this process must not find what the earlier one left in it.
    store = PrefixStore(f"meeting {next(_MEETINGS)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    # A group of its own, beside that of the gradients: small values never wait behind them or on the GPU.
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    try:
        with warnings.catch_warnings():
            # One-channel weights have several equal memory layouts; torch warns of the copy, which costs nothing.
            warnings.filterwarnings("ignore", message="Grad strides do not match")
            yield Processes(device, rank, world, group)
    finally:
        dist.destroy_process_group()


def run_local(job: Callable[..., None], argument: Any, count: int) -> None:
    """``job(argument, meeting)`` in ``count`` new processes on this machine; ``job`` and ``argument`` must pickle.

    The signals that stop a run are passed on to them. Raises the first error that one of them raised: those of
    :data:`_TOLD` as themselves, others as :class:`WorkerFailed`. They end when this process dies.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="medveil-") as folder:
        address = f"file://{Path(folder) / 'meeting'}"
        errors = context.Queue()
        workers = [
            context.Process(target=_worker, args=(job, argument, (address, rank, count), errors))
            for rank in range(count)
        ]

        def pass_on(number: int, _: FrameType | None) -> None:
            for worker in workers:
                if worker.pid is not None and worker.is_alive():
                    os.kill(worker.pid, number)

        with handling(pass_on):
            # Workers inherit the block: a signal waits until they have imported what they need to answer it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                for worker in workers:
                    worker.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            killed = _wait(workers)
        if killed is not None:
            # What the others then say about a lost connection explains nothing.
            raise WorkerFailed(f"a process was ended by {signal.Signals(killed).name}: too little memory, or killed")
        if any(worker.exitcode != 0 for worker in workers):
            try:
                raise errors.get(timeout=10.0)
            except queue.Empty:
                raise WorkerFailed("a process ended without a word: see what it printed above") from None


def _wait(workers: Sequence[BaseProcess]) -> int | None:
    """Until all have ended; once one has failed the others get a grace. Returns the signal that ended one, if any."""
    running, patience, killed = list(workers), None, None
    while running and wait([worker.sentinel for worker in running], timeout=patience):
        for worker in [worker for worker in running if not worker.is_alive()]:
            running.remove(worker)
            code = worker.exitcode or 0
            if code != 0:
                patience = _GRACE_SECONDS
            if code < 0:
                killed = killed or -code
    for worker in running:
        worker.kill()
        worker.join()
    return killed


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """``handler`` for SIGINT, SIGTERM, SIGUSR2 and SIGHUP within; nothing outside the main thread, where Python allows
    none, and nothing for a SIGHUP that nohup ignores.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _worker(job: Callable[..., None], argument: Any, meeting: tuple[str, int, int], errors: Any) -> None:
    # A terminal sends Ctrl-C to its whole process group: leave it, so that a signal arrives once, from the parent.
    os.setpgrp()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")

    def stop(number: int, _: FrameType | None) -> None:
        raise Interrupted(number, "before the run began")

    try:
        for number in _SIGNALS:
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        job(argument, meeting)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted(signal.SIGINT, "at once")
        elif not isinstance(error, _TOLD):
            error = WorkerFailed(f"process {meeting[1]} failed\n{traceback.format_exc()}")
        errors.put(error)
        errors.close()
        errors.join_thread()
        # Not sys.exit: the others may be inside a collective with this one, and must see it gone.
        os._exit(1)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
