"""What every kernel's compiled code needs, without a GPU, held against ``budgets.json``.

``python -m tests.kernels.ahead`` checks (the interpreter must be off). Budgets are kept with a fingerprint of the
source that they were compiled from, and of one source one version of Triton makes one code: with the budgets' version
a few kernels are compiled anew, to show that it is so, with another one kernel of each name. Where a fingerprint is
another one, ``--write`` compiles those kernels for all three architectures (minutes; all kernels with another version
of Triton), says what rose, and writes the file.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton

from tests.kernels.disassembly import resources
from tests.kernels.launches import Launch
from tests.kernels.variants import elements, launches

BUDGETS = Path(__file__).with_name("budgets.json")
ARCHITECTURES = (80, 90, 100)
SMALLER = ("registers", "spilled", "shared", "barriers", "loop", "all")  # is better
LARGER = ("load", "store")


def risen(name: str, now: dict[str, int], budget: dict[str, int], judged: tuple[str, ...]) -> list[str]:
    """What of ``judged`` is worse than its budget."""
    worse = [what for what in judged if (now[what] > budget[what] if what in SMALLER else now[what] < budget[what])]
    return [f"{name}: {what} is {now[what]}, its budget {budget[what]}" for what in worse]


def check(tables: dict[str, Any], found: dict[str, Launch]) -> Iterator[str]:
    """What is wrong."""
    rows = tables["kernels"]
    for name in sorted(set(rows) ^ set(found)):
        yield f"{name}: {'is no longer launched' if name in rows else 'has no budget'}"
    known = {name: launch for name, launch in found.items() if name in rows}
    for name, launch in known.items():
        if rows[name]["fingerprint"] != launch.fingerprint():
            yield f"{name}: the source is another than the budget's; python -m tests.kernels.ahead --write"
        for architecture in ARCHITECTURES:
            if rows[name][f"sm_{architecture}"]["spilled"]:
                yield f"{name} sm_{architecture}: spills"
    # Another version's compiler allots registers otherwise: of it only spills and widths are judged.
    same = triton.__version__ == tables["triton"]
    judged = (*SMALLER, *LARGER) if same else ("spilled", *LARGER)
    sample = {launch.name: name for name, launch in reversed(known.items())}
    for name in list(sample.values())[:: 6 if same else 1]:
        yield from risen(f"{name} sm_90", resources(found[name].compiled(90)), rows[name]["sm_90"], judged)


def write(tables: dict[str, Any], found: dict[str, Launch]) -> Iterator[str]:
    """New budgets, in the file; what rose."""
    rows: dict[str, Any] = {}
    compiled: dict[tuple[str, int], dict[str, int]] = {}  # some calls launch the same
    if tables["triton"] == triton.__version__:
        compiled = {
            (row["fingerprint"], a): row[f"sm_{a}"] for row in tables["kernels"].values() for a in ARCHITECTURES
        }
    for name, launch in found.items():
        before, fingerprint = tables["kernels"].get(name, {}), launch.fingerprint()
        row: dict[str, Any] = {"fingerprint": fingerprint, "elements": elements(launch)}
        for architecture in ARCHITECTURES:
            if (fingerprint, architecture) not in compiled:
                compiled[fingerprint, architecture] = resources(launch.compiled(architecture))
            now = row[f"sm_{architecture}"] = compiled[fingerprint, architecture]
            if f"sm_{architecture}" in before:
                yield from risen(f"{name} sm_{architecture}", now, before[f"sm_{architecture}"], (*SMALLER, *LARGER))
            if now["spilled"]:
                yield f"{name} sm_{architecture}: spills"
        rows[name] = row
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    text = f'{{\n "triton": "{triton.__version__}",\n "kernels": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    BUDGETS.write_text(text)


def main() -> int:
    tables = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {"triton": triton.__version__, "kernels": {}}
    found = dict(launches())
    wrong = list((write if "--write" in sys.argv else check)(tables, found))
    print("\n".join(wrong) if wrong else f"{len(found)} kernels within budget")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
