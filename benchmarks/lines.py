"""A pytest plugin that appends one JSON line per case as soon as it has finished, so that a run that is cut short keeps
what it has: ``pytest -p benchmarks.lines --lines FILE``. Needs pytest alone.

A line holds the ``case``, its ``outcome`` (passed, failed, skipped), the ``seconds`` it took, for the last two ``why``,
and of a benchmark the ``entry`` as in pytest-benchmark's JSON, with the ``machine_info`` and the ``commit_info``.
"""

import json
from pathlib import Path
from typing import Any

import pytest

ENTRY = "entry"
"""The name of the user property that a benchmark leaves its entry under."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lines", metavar="FILE", type=Path, help="append one JSON line per case as it finishes")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--lines", None)
    if path is not None:
        config.pluginmanager.register(_Lines(path))


class _Lines:
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":  # a package that is missing, a mistake in the file
            self.write({"case": report.nodeid, "outcome": report.outcome, "seconds": 0.0, "why": _why(report)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        line: dict[str, Any] = {"case": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        if report.outcome == "passed":
            line |= {name: value for name, value in report.user_properties if name == ENTRY}
        else:
            line["why"] = _why(report)
        self.write(line)


def _why(report: pytest.CollectReport | pytest.TestReport) -> str:
    """One line: a skip's reason, or the last line of an error."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line.removeprefix("E").strip() for line in text.strip().splitlines() if line.strip()]
    if crash is not None:
        return lines[0] if lines else ""
    return lines[-1] if lines else ""


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, less one that was cut while it was written."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def results(path: Path) -> dict[str, Any]:
    """The benchmarks of a file as pytest-benchmark's JSON has them. Raises ``ValueError`` where there are none, or of
    two machines."""
    entries = [line[ENTRY] for line in read(path) if ENTRY in line]
    machines = {json.dumps(entry["machine_info"], sort_keys=True) for entry in entries}
    if len(machines) != 1:
        raise ValueError(f"{path} holds benchmarks of {len(machines)} machines, not of one")
    return {**{name: entries[-1][name] for name in ("machine_info", "commit_info")}, "benchmarks": entries}
