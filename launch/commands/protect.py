"""``medveil protect``: its flags, those of every method, and the job that they describe."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from medveil.launch.protect.job import Preset, ProtectJob, run_protect
from medveil.launch.protect.methods import METHODS
from medveil.launch.protect.part import PartOptions, listed
from medveil.launch.running.processes import Device
from medveil.launch.running.runtime import CHECKPOINT_SECONDS, Precision
from medveil.protector import Empty

_OPTION = "option "
"""Before a field's name among the parsed arguments: a method may have a field called like one of the job's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``medveil protect`` that every method has."""
    parser.add_argument("--method", required=True, choices=list(METHODS), help="how to protect")
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
        "--classes", type=listed, default=(), metavar="LIST", help="only these get noise: names, or numbers from 0"
    )
    parser.add_argument(
        "--share", type=float, metavar="PERCENT", help="only so many of the images are known and get noise"
    )
    parser.add_argument(
        "--support", metavar="DATA", help="whose classes stand in, during the fit, for those that one does not have"
    )
    parser.add_argument("--support-classes", type=listed, default=(), metavar="LIST", help="default: all of them")
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
        "--shards",
        type=int,
        default=1,
        metavar="N",
        help="the same bytes from 1, 2, 4.. to N processes (a power of 2) of as many --threads",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep sets larger than memory unpacked there (private)"
    )
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=CHECKPOINT_SECONDS, metavar="S", help="between checkpoints"
    )
    parser.epilog = "medveil protect --method NAME --help lists the method's own settings too."


def add_method_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """A flag for every field of the configuration of the method that ``argv`` names, if it names one."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--method", nargs="?")
    method = first.parse_known_args(list(argv))[0].method
    if method not in METHODS:
        return
    group = parser.add_argument_group(f"settings of {method}")
    for item in fields(METHODS[method]):
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
    part = PartOptions(**{item.name: values[item.name] for item in fields(PartOptions)})
    run_protect(ProtectJob(**{key: value for key, value in values.items() if key in names}, options=options, part=part))
    return 0


def _splits(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _typed(value: Any) -> str:
    """A default as a person would type it: 4/255 for 0.01568..."""
    if isinstance(value, float) and value not in (0.0, 1.0) and abs(round(value * 2550) - value * 2550) < 1e-9:
        return f"{value * 255:g}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)
