import json
import multiprocessing
import os
import pickle
import platform
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medveil.errors import UserError
from medveil.launch.errors import Interrupted, VerificationFailed
from medveil.launch.running import bfloat, processes
from medveil.launch.running.allocator import keep_freed_memory
from medveil.launch.running.machine import Precision
from medveil.launch.running.processes import Processes, run_local
from medveil.launch.running.runs import own
from medveil.launch.running.runtime import ProcessRuntime, running
from medveil.runtime import State


@contextmanager
def runtime_in(root: Path, every: float = 1e9) -> Iterator[ProcessRuntime]:
    with (
        own(root, {"method": "test"}, "f") as run,
        running(Processes(torch.device("cpu")), run, "fp32", "test", every, quiet=True) as runtime,
    ):
        yield runtime


@pytest.mark.parametrize(
    ("cpu", "precision", "lines"), [("AVX2", "bf16", 1), ("AVX512", "bf16", 0), ("AVX2", "fp32", 0)]
)
def test_bf16_on_a_cpu_without_it_is_said_once(
    cpu: str, precision: Precision, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    bfloat.said.cache_clear()
    for _ in range(2):
        with running(Processes(torch.device("cpu")), None, precision, "test", quiet=True):
            pass
    assert capsys.readouterr().err.count("--precision fp32") == lines


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_a_step_reuses_the_memory_of_the_last_one() -> None:
    keep_freed_memory()

    def step() -> None:
        # Side by side, so that more is freed than malloc keeps by itself.
        activations = [torch.ones(2**20) for _ in range(6)]
        assert sum(one[0] for one in activations) == 6

    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    # Of 6 * 1024 pages a step; malloc may still move a block where other tests have left gaps.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10_000


def fit(runtime: ProcessRuntime, total: int = 10, signal_at: int | None = None, number: int = signal.SIGTERM) -> Tensor:
    """A fit of the protocol: a vector that doubles and counts."""
    vector, done = torch.zeros(3), 0
    if (state := runtime.restore()) is not None:
        vector, done = state["vector"], state["done"]
    while done < total:
        vector = 2 * vector + done
        done += 1
        if done == signal_at:
            os.kill(os.getpid(), number)

        def state(vector: Tensor = vector, done: int = done) -> State:
            return {"vector": vector, "done": done}

        runtime.step(done, total, state, loss=vector[0])
    return vector


@pytest.fixture
def heard() -> Iterator[None]:
    """A hang-up ends a process, though whoever started the tests may have it ignored, as nohup does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_fit_is_saved_and_goes_on_from_there(number: signal.Signals, heard: None, tmp_path: Path) -> None:
    with runtime_in(tmp_path / "whole") as runtime:
        whole = fit(runtime)
    handler = signal.getsignal(number)
    with runtime_in(tmp_path / "cut") as runtime, pytest.raises(Interrupted, match=f"{number.name} at step 4 of 10"):
        fit(runtime, signal_at=4, number=number)
    assert signal.getsignal(number) is handler
    with runtime_in(tmp_path / "cut") as runtime:
        assert runtime.restore()["done"] == 4  # type: ignore[index]
        assert torch.equal(fit(runtime), whole)
        assert runtime.run is not None
        lines = [json.loads(line) for line in (runtime.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[-1]["loss"] == float(whole[0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no checkpoint"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"step": "many"}, path),
        lambda path: path.write_bytes(pickle.dumps(Path("x"))),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["cut", "empty", "garbage", "a list", "no step", "a pickle of another kind", "a pipe"],
)
def test_an_unreadable_checkpoint_is_passed_over(damage: Callable[[Path], object], tmp_path: Path) -> None:
    with runtime_in(tmp_path, every=0.0) as runtime:
        whole = fit(runtime)
        assert runtime.run is not None
        newest, _ = runtime.run.checkpoints()
        damage(newest)
        assert runtime.restore()["done"] == 9  # type: ignore[index]
        assert torch.equal(fit(runtime), whole)
        assert "unreadable" in (runtime.run.path / "log.txt").read_text()


def test_a_nan_that_a_gpu_noted_ends_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = iter([False, True])
    monkeypatch.setattr("medveil.launch.running.runtime.nan_seen", lambda device: next(noted))
    with runtime_in(tmp_path, every=0.0) as runtime, pytest.raises(UserError, match="the fit diverged"):
        fit(runtime)
    with runtime_in(tmp_path) as runtime:
        assert runtime.restore()["done"] == 1  # type: ignore[index]


def test_checkpoints_are_taken_by_the_clock_and_at_the_end(tmp_path: Path) -> None:
    asked = []
    with runtime_in(tmp_path) as runtime:
        for done in range(1, 6):
            runtime.step(done, 5, lambda done=done: asked.append(done) or {})
    assert asked == [5]


def test_the_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with runtime_in(tmp_path):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_precision_is_that_of_network_interiors(tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        runtime = ProcessRuntime(Processes(torch.device("cpu")), None, precision, None, None)  # type: ignore[arg-type]
        with runtime.autocast():
            assert layer(torch.ones(1, 4)).dtype == dtype


def fail(error: Exception, _: tuple[str, int, int]) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "start"),
    [(VerificationFailed("a file differs"), "fork"), (ModuleNotFoundError("absent", name="PIL"), "spawn")],
)
def test_what_is_told_in_one_line_is_so_from_another_process_too(
    error: Exception, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a new process, as they are; and from one that need not import torch for it first."""
    context = multiprocessing.get_context(start)
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: context)
    with pytest.raises(type(error)) as raised:
        run_local(fail, error, 1)
    assert str(raised.value) == str(error)
    assert getattr(raised.value, "name", None) == getattr(error, "name", None)
