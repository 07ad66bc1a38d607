"""Everything that needs a GPU, in one call: ``python benchmarks/run_gpu.py OUT [--quick] [--minutes 9]``.

1. the operators' tests, now on CUDA through the real compiler; 2. if they pass, the benchmarks, one file at a time, on
batches of at least 1 GB and against torch.compile (``--quick``: small batches, no torch.compile); 3. compute-sanitizer
on the kernels, where it is installed. Nothing starts once the minutes are over, and what runs is stopped; whatever was
measured until then is kept. Only torch, triton, numpy, scikit-image, matplotlib, pytest and pytest-benchmark are
needed: a file of benchmarks that needs more fails by itself. Writes OUT/tests.txt, benchmarks.txt, gpu.json, gpu.md
and sanitizer.txt.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# These first, then every other file.
OPERATORS = ("test_topk.py", "test_clip.py", "test_lbp.py", "test_cdc_gradients.py", "test_cdc.py")
# One small test of every kernel: the sanitizer slows each down a hundredfold.
SANITIZED = "cuda and (keep or random_rows or equals_skimage or equals_the_equations) and not real"


def run(log: Path, until: float, *command: str) -> int:
    """Run from the repository's root, appending to a log; the last lines and the exit code (124: stopped) go to the
    screen."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("a") as file:
        try:
            seconds = max(1.0, until - time.monotonic())
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=seconds
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = 124
    print(f"{log.name}: exit {code}\n" + "\n".join(log.read_text().splitlines()[-15:]), flush=True)
    return code


def benchmark(out: Path, until: float, options: list[str]) -> int:
    """All files of benchmarks into OUT/gpu.json, which is complete after each; the number of those that failed."""
    files = [ROOT / "benchmarks" / name for name in OPERATORS]
    files += sorted(set((ROOT / "benchmarks").glob("test_*.py")) - set(files))
    merged: dict[str, object] = {}
    entries: list[object] = []
    failures = 0
    for file in files:
        if time.monotonic() > until:
            print(f"{file.name}: no time left")
            failures += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "found.json"
            command = (sys.executable, "-m", "pytest", str(file), "-q", f"--benchmark-json={found}", *options)
            failures += run(out / "benchmarks.txt", until, *command) != 0
            if found.exists() and found.stat().st_size:
                more = json.loads(found.read_text())
                entries += more["benchmarks"]
                merged = more | {"benchmarks": entries}
                (out / "gpu.json").write_text(json.dumps(merged, indent=1))
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests, benchmarks and compute-sanitizer on a GPU.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="small batches, no torch.compile")
    parser.add_argument("--minutes", type=float, default=9.0)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tests.txt", "benchmarks.txt", "gpu.json", "gpu.md", "sanitizer.txt"):
        (out / name).unlink(missing_ok=True)
    until = time.monotonic() + 60 * arguments.minutes
    tests = (sys.executable, "-m", "pytest", "tests/kernels", "-q", "-p", "no:cacheprovider")
    if run(out / "tests.txt", until, *tests, "-k", "cuda"):
        return 1
    failures = benchmark(out, until, [] if arguments.quick else ["--large", "--with-compile"])
    if (out / "gpu.json").exists():
        report = (sys.executable, "-m", "benchmarks.report", str(out / "gpu.json"), str(out / "gpu.md"))
        failures += run(out / "benchmarks.txt", time.monotonic() + 60, *report) != 0
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        print("compute-sanitizer: not installed, skipped")
    elif time.monotonic() > until:
        print("compute-sanitizer: no time left")
    else:
        failures += run(out / "sanitizer.txt", until, sanitizer, "--error-exitcode", "1", *tests, "-k", SANITIZED) != 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
