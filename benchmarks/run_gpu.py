"""Everything that needs a GPU, in one call: ``python benchmarks/run_gpu.py OUT [--quick]``.

1. the operators' tests, now on CUDA through the real compiler; 2. compute-sanitizer on the kernels, where it is
installed; 3. the benchmarks, on batches of at least 1 GB and against torch.compile (``--quick``: small batches, no
torch.compile). Writes OUT/tests.txt, sanitizer.txt, gpu.json, gpu.md and benchmarks.txt; benchmarks run only after
the tests have passed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(log: Path, *command: str) -> int:
    """Run from the repository's root into a log; the last lines and the exit code go to the screen."""
    with log.open("w") as file:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    print(f"{log.name}: exit {code}\n" + "\n".join(log.read_text().splitlines()[-15:]), flush=True)
    return code


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    out, quick = Path(sys.argv[1]).resolve(), "--quick" in sys.argv
    out.mkdir(parents=True, exist_ok=True)
    python = sys.executable
    if run(out / "tests.txt", python, "-m", "pytest", "tests/kernels", "-q", "-x", "-k", "cuda"):
        return 1
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer:
        tests = ("-m", "pytest", "tests/kernels", "-q", "-k", "cuda and (equal or random_rows or step_is)")
        run(out / "sanitizer.txt", sanitizer, "--error-exitcode", "1", python, *tests)
    else:
        print("compute-sanitizer: not installed, skipped")
    results = out / "gpu.json"
    options = [] if quick else ["--large", "--with-compile"]
    code = run(
        out / "benchmarks.txt", python, "-m", "pytest", "benchmarks", "-q", f"--benchmark-json={results}", *options
    )
    if results.exists():
        run(out / "report.txt", python, "-m", "benchmarks.report", str(results), str(out / "gpu.md"))
    return code


if __name__ == "__main__":
    sys.exit(main())
