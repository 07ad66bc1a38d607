"""Twenty protect jobs, each killed at a random moment and started again: twenty releases as if nothing had happened.

Longer than a test: ``python -m tests.kill_many`` in the project's folder writes docs/results/kill_many.json.
"""

import argparse
import hashlib
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from medveil.version import versions
from tests.launch.protecting import contents, finish, start

METHODS = {
    "salm": ["--data", "phantom:cls:48:16", "--preset", "demo", "--width", "4", "--steps", "60", "--pgd-steps", "2"],
    "umed": ["--data", "phantom:seg:48:16", "--epochs", "10", "--width", "4", "--depth", "2", "--batch-size", "8"],
}


PATIENCE_SECONDS = 900
"""For one job: on a busy machine it may take long, and that is not what is tried here."""


def argv(method: str, out: Path) -> list[str]:
    fixed = ["--seed", "7", "--threads", "1", "--device", "cpu", "--checkpoint-seconds", "0.1"]
    return ["protect", "--method", method, "--out", str(out), *METHODS[method], *fixed]


def resumed(out: Path) -> int | None:
    """The step from which the newest start went on; None if it began anew."""
    (log,) = out.parent.glob(f".{out.name}.run/*/log.txt")
    found = re.findall(r"goes on from step (\d+)", log.read_text())
    return int(found[-1]) if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=Path("docs/results/kill_many.json"))
    args = parser.parse_args()
    chance = random.Random(args.seed)
    trials = []
    with tempfile.TemporaryDirectory(prefix="medveil-kills-") as name:
        folder = Path(name)
        whole, seconds = {}, {}
        for method in METHODS:
            # The first start also waits for the server of processes: the second tells how long a job takes.
            for out in (folder / f"{method}-first", folder / f"{method}-whole"):
                begun = time.monotonic()
                assert finish(start(argv(method, out), folder / "output"), PATIENCE_SECONDS) == 0, (
                    folder / "output"
                ).read_text()
                seconds[method] = time.monotonic() - begun
            whole[method] = contents(folder / f"{method}-whole")
            assert contents(folder / f"{method}-first") == whole[method]
        while len(trials) < args.kills:
            method = list(METHODS)[len(trials) % len(METHODS)]
            out = folder / f"{method}-{len(trials)}-{time.monotonic_ns()}"
            process = start(argv(method, out), folder / "output")
            moment = chance.uniform(0.1, 1.0) * seconds[method]
            process.join(moment)
            if process.exitcode is not None:
                continue
            process.kill()
            process.join()
            assert finish(start(argv(method, out), folder / "output"), PATIENCE_SECONDS) == 0, (
                folder / "output"
            ).read_text()
            equal = contents(out) == whole[method]
            trial = {"method": method, "killed_after_seconds": round(moment, 2), "went_on_from_step": resumed(out)}
            trials.append({**trial, "equal": equal})
            print(f"{len(trials)} of {args.kills}: {trials[-1]}", flush=True)
    result = {
        "command": "python -m tests.kill_many",
        "kills": len(trials),
        "byte_identical_releases": sum(bool(trial["equal"]) for trial in trials),
        "went_on_from_a_checkpoint": sum(trial["went_on_from_step"] is not None for trial in trials),
        "release_sha256": {
            method: hashlib.sha256(b"".join(n.encode() + c for n, c in sorted(files.items()))).hexdigest()
            for method, files in whole.items()
        },
        "versions": versions(),
        "trials": trials,
    }
    args.result.parent.mkdir(parents=True, exist_ok=True)
    args.result.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["byte_identical_releases"] == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
