"""One protect job: from a data set and a method to a verified release."""

import argparse
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch

from launch.data import Source, open_data, split_holdout
from launch.methods import PROTECTORS
from launch.processes import Device, Processes, joined, run_local
from launch.release import MANIFEST, Plan, Summary, first_damage, write_release
from launch.release_folder import sha256_of
from launch.runs import Run, drawn_once, make_private, own
from launch.runtime import CHECKPOINT_SECONDS, Precision, running, threads_by_default
from medveil.config import plain
from medveil.dataset import Subset
from medveil.errors import UserError
from medveil.protector import Empty, Protector

Preset = Literal["auto", "cpu", "gpu", "paper"]

_OPTION = "option "
"""Before a field's name among the parsed arguments: a method may have a field called like one of the job's."""


@dataclass(frozen=True)
class ProtectJob:
    """What to protect, how, and where to. Plain values, so that it can be pickled.

    ``data``: as ``open_data`` reads it. ``out``: the release folder, which must not exist. ``options``: fields of the
    method's configuration, over those of ``preset`` ("auto": "gpu" where there is one, else "cpu"; None: the paper's
    defaults). ``seed``: None draws a secret one. ``holdout``: share of the samples that is neither fitted nor released,
    chosen by ``holdout_seed``. ``splits``: of an npz. ``empty``: whether samples with nothing to protect are released
    unchanged or dropped; by default dropped from segmentation sets. ``threads``: per process (None: torch's own choice,
    at most 4). ``precision``: None is bf16 on a GPU, else fp32. ``processes``: on this machine. ``run``: folder for the
    private run (None: ``.OUT.run`` beside ``out``). ``checkpoint_seconds``: between checkpoints.

    What is drawn or chosen by default is kept in the run folder, so that a restart elsewhere takes the same.
    """

    method: str
    data: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: Preset | None = None
    seed: int | None = None
    size: int | None = None
    holdout: float = 0.0
    holdout_seed: int = 0
    splits: tuple[str, ...] = ("train",)
    empty: Empty | None = None
    threads: int | None = None
    precision: Precision | None = None
    device: Device = "auto"
    processes: int = 1
    run: Path | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    quiet: bool = False

    @property
    def run_root(self) -> Path:
        return self.run or self.out.with_name(f".{self.out.name}.run")


def run_protect(job: ProtectJob) -> Path:
    """Do the job, or go on with it where it was cut; returns the release folder.

    Raises UserError for what the user can mend, Interrupted when asked to stop (the state is saved), VerificationFailed
    when what was saved is not what was promised.
    """
    if job.method not in PROTECTORS:
        raise UserError(f"no method is called {job.method!r}: choose from {', '.join(PROTECTORS)}")
    if os.path.lexists(job.out) and not job.run_root.is_dir():
        raise _other_origin(job.out)
    for name, value in (("processes", job.processes), ("threads", job.threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: at least 1")
    make_protector(job, "cpu" if job.preset == "auto" else job.preset, 0)
    check_place(job.out)
    if job.processes > 1:
        run_local(_in_worker, job, job.processes)
    else:
        _in_worker(job, None)
    return job.out


def _in_worker(job: ProtectJob, meeting: tuple[str, int, int] | None) -> None:
    with joined(job.device, meeting) as processes:
        _protect(job, processes)


def _protect(job: ProtectJob, processes: Processes) -> None:
    begun = time.monotonic()
    source = open_data(job.data, size=job.size, splits=job.splits)
    empty = job.empty or ("drop" if source.data.task == "segmentation" else "release")
    indices, held_out = _indices(job, source, empty)
    # Only now is anything written: whatever is wrong with the input has been said.
    chosen = processes.from_first(lambda: _chosen(job, processes))
    protector = make_protector(job, chosen["preset"], chosen["seed"])
    torch.set_num_threads(chosen["threads"])
    config = {
        "method": job.method,
        "options": plain(protector.config),
        "seed": chosen["seed"],
        "size": list(source.data.size),
        "holdout": [job.holdout, job.holdout_seed] if job.holdout else None,
        "splits": list(job.splits),
        "empty": empty,
        "threads": chosen["threads"],
        "precision": chosen["precision"],
    }
    with ExitStack() as stack:
        run: Run | None = None

        def begin() -> bool:
            nonlocal run
            run = stack.enter_context(own(job.run_root, config, source.fingerprint))
            return _finished(run, job.out)

        if processes.from_first(begin):
            if run is not None:
                _finish(run, job.out, None)
                _say(job, f"already done: {job.out} holds this release")
            return
        if run is not None:
            for line in [*source.notes, _headline(job, source, chosen, len(indices), len(held_out))]:
                run.log(line)
                _say(job, line)
        label = f"{job.method} on {source.name}"
        runtime = stack.enter_context(
            running(processes, run, chosen["precision"], label, job.checkpoint_seconds, job.quiet)
        )
        protector.fit(Subset(source.data, indices), runtime)
        runtime.progress.close()
        plan = Plan(source, indices, protector, empty, held_out)
        summary = write_release(plan, job.out, run, runtime)
        if run is not None and summary is not None:
            _finish(run, job.out, time.monotonic() - begun)
            for line in _account(job, summary):
                run.log(line)
                _say(job, line)


def make_protector(job: ProtectJob, preset: str | None, seed: int) -> Protector:
    """The job's method with its options over the preset's. Raises UserError for options that it refuses."""
    cls = PROTECTORS[job.method]
    options = {**(cls.presets[preset] if preset else {}), **job.options}
    return cls(**{"seed": seed, **options})


def check_place(out: Path) -> None:
    """Raise UserError now, not after hours, when ``out`` could not be written."""
    folder = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UserError(f"{out} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{out} cannot be written: no permission to write in {folder}")


def _chosen(job: ProtectJob, processes: Processes) -> dict[str, Any]:
    """Seed, threads, precision and preset: as told, else as chosen at the first start of this run folder."""
    root = job.run_root
    cuda = processes.device.type == "cuda"
    make_private(root)
    kept = drawn_once(
        root / "chosen.json",
        lambda: {
            "seed": secrets.randbits(62),
            "threads": max(1, threads_by_default() // processes.world),
            "precision": "bf16" if cuda else "fp32",
            "preset": "gpu" if cuda else "cpu",
        },
    )
    told = {"seed": job.seed, "threads": job.threads, "precision": job.precision, "preset": job.preset}
    chosen = {key: kept[key] if value is None else value for key, value in told.items()}
    chosen["preset"] = kept["preset"] if job.preset == "auto" else job.preset
    return chosen


def _indices(job: ProtectJob, source: Source, empty: Empty) -> tuple[list[int], list[str]]:
    """The samples to fit and release, and the ids that are held out."""
    task = source.data.task
    if task not in PROTECTORS[job.method].tasks:
        others = ", ".join(name for name, cls in PROTECTORS.items() if task in cls.tasks)
        raise UserError(f"{job.data} is a {task} set, which {job.method} cannot protect; these can: {others}")
    if source.kind == "npz":
        if job.holdout:
            raise UserError(f"--holdout is for folders: {job.data} keeps its own test split")
        if empty == "drop":
            raise UserError(f"--empty drop is for folders: {job.data} keeps its shapes")
    if not job.holdout:
        return list(range(len(source.data))), []
    train, test = split_holdout(source.data, job.holdout, job.holdout_seed)
    return train, [source.data.ids[i] for i in test]


def _finished(run: Run, out: Path) -> bool:
    """Whether ``out`` is this run's release and intact. Raises UserError for an ``out`` that is not."""
    if not os.path.lexists(out):
        return False
    noted = run.read_note("release.json")
    manifest = out / MANIFEST
    if noted is None or not manifest.is_file() or sha256_of(manifest) != noted["manifest"]:
        raise _other_origin(out)
    if (damaged := first_damage(out)) is not None:
        raise UserError(f"{out / damaged} was changed after the release was written: remove {out} to write it again")
    return True


def _other_origin(out: Path) -> UserError:
    return UserError(
        f"{out} exists and does not come from this data and these settings: choose another --out or remove it"
    )


def _finish(run: Run, out: Path, seconds: float | None) -> None:
    if run.read_note("done.json") is None:
        totals = json.loads((out / MANIFEST).read_text())["totals"]
        run.finish({"totals": totals, "seconds": seconds, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _headline(job: ProtectJob, source: Source, chosen: Mapping[str, Any], count: int, held_out: int) -> str:
    height, width = source.data.size
    preset = f", preset {chosen['preset']}" if chosen["preset"] else ""
    seed = "a secret seed" if job.seed is None else f"seed {job.seed}"
    held = f", {held_out} held out" if held_out else ""
    return (
        f"protecting {count} images of {width}x{height} from {source.name} with {job.method}{preset}{held}; "
        f"{seed}, {chosen['threads']} threads, {chosen['precision']}"
    )


def _account(job: ProtectJob, summary: Summary) -> list[str]:
    lines = [f"{summary.protected} of {summary.samples} released images are protected"]
    for reason, count in summary.reasons.items():
        what = "dropped" if summary.dropped else "released unchanged"
        lines.append(f"{count} with nothing to protect ({reason}): {what}")
    if summary.psnr is not None and summary.ssim is not None:
        lines.append(f"PSNR {summary.psnr:.2f} dB, SSIM {summary.ssim:.4f} (means over the protected images)")
    lines.append(f"release: {job.out}")
    lines.append(f"private run, not to be published: {job.run_root}")
    return lines


def _say(job: ProtectJob, line: str) -> None:
    if not job.quiet:
        print(line, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``medveil protect`` that every method has."""
    parser.add_argument("--method", required=True, choices=list(PROTECTORS), help="how to protect")
    parser.add_argument(
        "--data", required=True, help="a folder, a MedMNIST npz, medmnist:NAME[:SIZE], phantom:seg or phantom:cls"
    )
    parser.add_argument("--out", required=True, type=Path, help="the release folder to write; it must not exist")
    parser.add_argument(
        "--preset",
        choices=get_args(Preset),
        default="auto",
        help="settings that go together (auto: gpu if there is one)",
    )
    parser.add_argument("--seed", type=int, help="default: a secret one, drawn once and kept in the private run folder")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side that the images of folders are resized to")
    parser.add_argument(
        "--holdout", type=float, default=0.0, metavar="SHARE", help="left out of fit and release, to test on"
    )
    parser.add_argument("--holdout-seed", type=int, default=0, metavar="N", help="which images are held out")
    parser.add_argument(
        "--splits",
        type=_splits,
        default=("train",),
        metavar="LIST",
        help="parts of an npz to protect, such as train,val",
    )
    parser.add_argument(
        "--empty", choices=get_args(Empty), help="images with nothing to protect (default: drop for segmentation)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="per process (default: torch's own choice, at most 4)")
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="inside networks (default: bf16 on a GPU, else fp32)"
    )
    parser.add_argument("--device", choices=get_args(Device), default="auto")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes on this machine")
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=CHECKPOINT_SECONDS, metavar="S", help="between checkpoints"
    )
    parser.epilog = "medveil protect --method NAME --help lists the method's own settings too."


def add_method_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """A flag for every field of the configuration of the method that ``argv`` names, if it names one."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--method", nargs="?")
    method = first.parse_known_args(list(argv))[0].method
    if method not in PROTECTORS:
        return
    group = parser.add_argument_group(f"settings of {method}")
    for item in fields(PROTECTORS[method].Config):
        if item.name != "seed":
            group.add_argument(
                f"--{item.name.replace('_', '-')}",
                dest=_OPTION + item.name,
                default=argparse.SUPPRESS,
                metavar="|".join(map(str, get_args(item.type))) if get_origin(item.type) is Literal else "VALUE",
                help=f"default: {_typed(item.default)}".replace("%", "%%"),
            )


def main(args: argparse.Namespace) -> int:
    """Run ``medveil protect``."""
    values = vars(args)
    options = {key.removeprefix(_OPTION): value for key, value in values.items() if key.startswith(_OPTION)}
    names = {item.name for item in fields(ProtectJob)}
    run_protect(ProtectJob(**{key: value for key, value in values.items() if key in names}, options=options))
    return 0


def _splits(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _typed(value: Any) -> str:
    """A default as a person would type it: 4/255 for 0.01568..."""
    if isinstance(value, float) and value not in (0.0, 1.0) and abs(round(value * 2550) - value * 2550) < 1e-9:
        return f"{value * 255:g}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)
