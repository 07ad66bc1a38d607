"""``medveil protect``: its flags, those of the method, and the job that they describe."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from medveil.errors import UserError
from medveil.launch.commands.flags import DRY_RUN, Flags, a_method, peek
from medveil.launch.data.config import MEDICAL, Reading
from medveil.launch.data.layout import layout_of
from medveil.launch.protect.config import DATA, HOW, KEYS, WHAT, WHERE, KeyOptions, PartOptions, ProtectJob, beside
from medveil.launch.protect.methods import METHOD_OF_TASK, METHODS, method_for, settings_of
from medveil.launch.protect.own import is_file
from medveil.launch.ranks import rank
from medveil.launch.running.machine import HERE, usual_preset
from medveil.launch.target.config import CALIBRATION, Target, bounded

_METHOD = "how to protect; by default umed for images with masks, salm for classes; FILE.py: a protector of your own"


def add_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """The flags of ``medveil protect``, and those of the method that ``argv`` names or the data's layout calls for."""
    parser.usage = "medveil protect FOLDER [--out RELEASE] [--method METHOD] [--preset PRESET] [options]"
    every = [ProtectJob, PartOptions, Reading, KeyOptions, Target, *METHODS.values()]
    known = peek(argv, *every)
    if known["method"] is not None and is_file(known["method"]):
        # What follows a flag of the user's own is no folder.
        known = peek(argv, *every, settings_of(known["method"]))
    data = known["data"] or known["positional"]
    method = known["method"] or (METHOD_OF_TASK["classification"] if known["labels_from"] else method_for(data))
    flags = _job_flags(parser, method)
    if method is None or not (method in METHODS or is_file(method)):
        parser.epilog = "The settings of a method are listed by: medveil protect --method NAME --help"
        return
    preset = usual_preset(known["device"]) if known["preset"] in (None, "auto") else known["preset"]
    settings = settings_of(method)
    flags.add(settings, "fit", skip=[item.name for item in fields(ProtectJob)], defaults=settings.presets.get(preset))
    parser.epilog = f"Defaults of noise and fit are those of {method}'s preset {preset}."


def main(args: argparse.Namespace) -> int:
    """Run ``medveil protect``."""
    from medveil.launch.errors import tell
    from medveil.launch.protect.keys import keys_of, write_keys

    calibration = Flags.given(args, Target)
    target = Target(**calibration)
    for flag in ("attacks", "effort"):
        if flag in calibration and target.target is None:
            raise UserError(f"--{flag} goes with --target, the score that the noise is to keep a model below")
    job, layout = bounded(_job(args), target), layout_of(args.data)
    options = KeyOptions(**Flags.given(args, KeyOptions))
    if job.groups is not None and not (job.holdout or options.key_for):
        raise UserError("--groups goes with --holdout, the share that is left out to test on, or with --key-for")
    # Asked for now: nobody waits beside a fit of hours.
    keys = keys_of(options, job.out)
    if layout is not None and rank() == 0:
        tell(f"{job.data}: {layout}; method {job.method}; release: {job.out}")
    if target.target is not None:
        from medveil.launch.target.job import run_target

        if not run_target(target, job, args.dry_run):
            return 0 if args.dry_run else 1
    elif args.dry_run:
        from medveil.launch.protect.preview import preview

        tell("\n".join(preview(job)))
        return 0
    else:
        from medveil.launch.protect.job import run_protect

        run_protect(job)
    for line in write_keys(keys, job.out, job.run_root, job.quiet, job.groups):
        print(line, flush=True)
    return 0


def _job_flags(parser: argparse.ArgumentParser, method: str | None) -> Flags:
    flags = Flags(parser, WHAT, WHERE, HOW, CALIBRATION, "noise", "fit", MEDICAL, KEYS, HERE)
    flags.under(WHAT).add_argument("data", nargs="?", metavar="FOLDER", help=DATA)
    flags.under(WHAT).add_argument("--data", dest="named", metavar="DATA", help="the same, by name")
    flags.under(HOW).add_argument("--method", default=method, type=a_method, metavar="METHOD", help=_METHOD)
    flags.add(ProtectJob, skip=("data",), defaults={"preset": "auto"})
    flags.add(PartOptions)
    flags.add(Reading)
    flags.add(KeyOptions)
    flags.add(Target)
    flags.under(WHERE).add_argument("--dry-run", action="store_true", help=DRY_RUN)
    return flags


def _job(args: argparse.Namespace) -> ProtectJob:
    if args.data is not None and args.named is not None:
        raise UserError(f"{args.data} and --data {args.named}: name the data once")
    args.data = args.data or args.named
    if args.data is None:
        raise UserError("what is to be protected? name its folder: medveil protect FOLDER")
    job = {"preset": "auto", **Flags.given(args, ProtectJob)}
    out = job.pop("out", None) or beside(args.data)
    part = PartOptions(**Flags.given(args, PartOptions))
    reading = Reading(**Flags.given(args, Reading))
    method = args.method or _by_opening(args.data, job, reading)
    options = Flags.given(args, settings_of(method))
    return ProtectJob(method, args.data, out, options=options, part=part, reading=reading, **job)


def _by_opening(data: str, job: Mapping[str, Any], reading: Reading) -> str:
    from medveil.launch.data import Opener
    from medveil.launch.protect.input import method_by_opening

    return method_by_opening(data, Opener(job.get("cache"), job.get("skip_bad", False), reading), job.get("size"))
