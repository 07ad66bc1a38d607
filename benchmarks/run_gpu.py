"""What a GPU is to tell, in one call: ``python benchmarks/run_gpu.py OUT [PART ...] [--budget SECONDS] [--quick]``.

Parts, most valuable first: ``limits`` (a copy, matrix products), ``steps`` (SALM's and UMed's, end to end), one for
each operator (``topk``, ``clip``, ``lbp``, ``cdc``, ``gradients``), ``tests`` (the operators' tests through the real
compiler), ``compile`` (torch.compile's times). ``sanitizer`` (compute-sanitizer on the kernels) runs only when named:
it takes minutes by itself. Batches are of at least 1 GB (``--quick``: small).

Each part is a process of its own that may use half of the seconds left: one that fails, hangs or misses a package
takes nothing from the others. OUT/gpu.jsonl gets a line per case as it finishes; a later call with the same OUT adds
to it. OUT/gpu.md is rewritten after each part, OUT/log.txt has everything that was printed. Packages that the
environment lacks may be brought by PYTHONPATH. Exit code 1 where anything failed or was cut off, 2 where no GPU is
visible.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import lines  # noqa: E402 - run as a file, the root is not on the path

BENCHMARKS = {
    "limits": ("benchmarks/test_limits.py",),
    "steps": ("benchmarks/test_end_to_end.py",),
    "topk": ("benchmarks/test_topk.py",),
    "clip": ("benchmarks/test_clip.py",),
    "lbp": ("benchmarks/test_lbp.py",),
    "cdc": ("benchmarks/test_cdc.py",),
    "gradients": ("benchmarks/test_cdc_gradients.py",),
}
COMPILED = ("topk", "clip", "cdc", "steps")
TESTS = ("tests/kernels", "-k", "cuda", "-p", "no:cacheprovider")
# One small test of every kernel: the sanitizer slows each down a hundredfold.
SANITIZED = (*TESTS[:2], "cuda and (keep or random_rows or equals_skimage or equals_the_equations) and not real")
PARTS = (*BENCHMARKS, "tests", "compile", "sanitizer")
SHARE, LEAST = 0.5, 5.0  # of the seconds left that one part may use, and what it is worth starting for


def commands(part: str, quick: bool) -> list[tuple[str, ...]]:
    """The pytest commands of ``part``, without the interpreter."""
    if part == "tests":
        return [TESTS]
    if part == "sanitizer":
        return [SANITIZED]
    size = () if quick else ("--large",)
    if part == "compile":
        return [(*BENCHMARKS[name], "--with-compile", "-k", "compile", *size) for name in COMPILED]
    return [(*BENCHMARKS[part], *size)]


def run(out: Path, seconds: float, command: list[str]) -> int:
    """Run from the repository's root, appending to the log; the exit code (124: stopped with all that it started)."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    with (out / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return 124
        finally:  # of the process and what it left, such as compilers at work
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tell(part: str, code: int, seconds: float, found: list[dict[str, object]]) -> None:
    """One line for the part and one for each case that has no result."""
    counts = {outcome: sum(line["outcome"] == outcome for line in found) for outcome in ("passed", "failed", "skipped")}
    cut = ", stopped: its time was up" if code == 124 else ""
    print(f"{part}: {', '.join(f'{n} {o}' for o, n in counts.items())} in {seconds:.0f} s, exit {code}{cut}")
    for line in found:
        if line["outcome"] == "failed":
            print(f"  {line['case']}: {line['why']}")
    sys.stdout.flush()


def write_page(out: Path) -> None:
    """The page of what has been measured so far; with a plot where matplotlib is installed."""
    from benchmarks import report

    try:
        report.main(out / "gpu.jsonl", out / "gpu.md")
    except ValueError as error:
        print(f"gpu.md: {error}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all but the last")
    parser.add_argument("--budget", type=float, default=540.0, metavar="SECONDS", help="for everything")
    parser.add_argument("--quick", action="store_true", help="small batches")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    import torch  # not before: help is to come at once

    if not torch.cuda.is_available():
        print(
            "run_gpu.py: no CUDA GPU is visible here: run it where torch.cuda.is_available() is true", file=sys.stderr
        )
        return 2
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + arguments.budget
    return run_parts(out, arguments.parts or PARTS[:-1], until, arguments.quick)


def run_parts(out: Path, parts: list[str] | tuple[str, ...], until: float, quick: bool) -> int:
    """Run ``parts`` in that order until the time ``until``; 1 where anything failed or was cut off, else 0."""
    table = out / "gpu.jsonl"
    failed = False
    for part in parts:
        prefix = []
        if part == "sanitizer":
            tool = shutil.which("compute-sanitizer")
            if tool is None:
                print("sanitizer: compute-sanitizer is not installed", flush=True)
                failed = True
                continue
            prefix = [tool, "--error-exitcode", "1"]
        for command in commands(part, quick):
            left = until - time.monotonic()
            if left < LEAST:
                print(f"{part}: not begun, no time left", flush=True)
                failed = True
                continue
            before = len(lines.read(table)) if table.exists() else 0
            begun = time.monotonic()
            # The last part may have everything that is left.
            seconds = left if part == parts[-1] else SHARE * left
            pytest = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.lines", "--lines", str(table)]
            code = run(out, seconds, [*prefix, *pytest, *command])
            found = lines.read(table)[before:] if table.exists() else []
            tell(part, code, time.monotonic() - begun, found)
            failed |= code not in (0, 5)  # 5: nothing to run here
        if table.exists():
            write_page(out)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
