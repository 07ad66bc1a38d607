"""The house: which folder and which room may import which, how high the rooms are stacked, and how long a file is."""

import ast
from collections.abc import Mapping, Set
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOLDERS = ({"kernels"}, {"medveil"}, {"umed", "salm"}, {"veil", "baselines"}, {"launch"}, {"benchmarks"})
"""From the ground up; those of one floor do not import each other."""

ROOMS = (
    "",
    "running",
    "data",
    "exploiters",
    "release",
    "protect",
    "audit",
    "target",
    "report",
    "jobs",
    "sweeping",
    "commands",
)
"""Of launch: each may import from those before it ("": the files of launch itself)."""

FLOORS = 9
LINES = 300


def _modules() -> dict[str, Path]:
    """Every module of the checkout by its import name."""
    found = {}
    for folder in sorted(set().union(*FOLDERS)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
            found[name if folder in ("medveil", "benchmarks") else f"medveil.{name}"] = path
    # medveil/ holds links to the other folders, of which some Pythons' rglob lists what is behind them.
    return {name: path for name, path in found.items() if path.resolve() == path}


MODULES = _modules()


@cache
def imports_of(name: str) -> frozenset[str]:
    """The modules that ``name`` imports, wherever in the file and whatever for."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    # A package's own import of its modules is what others reach through it.
    known = {one for one in found if one in MODULES and not name.startswith(f"{one}.")}
    return frozenset(known - {name})


def folder_of(module: str) -> str:
    head, *rest = module.split(".")
    return rest[0] if head == "medveil" and rest and rest[0] in set().union(*FOLDERS) else head


def room_of(module: str) -> str:
    second = module.removeprefix("medveil.launch").lstrip(".").split(".")[0]
    return second if second in ROOMS else ""


LAUNCH = {name: imports_of(name) for name in MODULES if folder_of(name) == "launch"}


def floors(graph: Mapping[str, Set[str]]) -> int:
    """Nodes of the longest chain; raises ``graphlib.CycleError`` for a circle."""
    heights: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        heights[node] = 1 + max((heights[below] for below in graph.get(node, ())), default=0)
    return max(heights.values(), default=0)


def test_folders_import_downwards_only() -> None:
    level = {folder: number for number, some in enumerate(FOLDERS) for folder in some}
    upwards = [
        f"{name} imports {other}"
        for name in MODULES
        for other in imports_of(name)
        if folder_of(name) != folder_of(other) and level[folder_of(name)] <= level[folder_of(other)]
    ]
    assert not upwards


def test_rooms_import_downwards_only() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, below in LAUNCH.items()
        for other in below
        if folder_of(other) == "launch" and ROOMS.index(room_of(name)) < ROOMS.index(room_of(other))
    ]
    assert not upwards


def test_no_circle() -> None:
    floors({name: imports_of(name) for name in MODULES})


def test_few_floors() -> None:
    rooms = {
        room: {room_of(one) for name in LAUNCH if room_of(name) == room for one in LAUNCH[name] & LAUNCH.keys()}
        - {room}
        for room in ROOMS
    }
    assert floors(rooms) <= FLOORS


@pytest.mark.parametrize("folder", sorted({MODULES[name].parent.relative_to(ROOT).as_posix() for name in LAUNCH}))
def test_few_floors_within(folder: str) -> None:
    within = {name for name in LAUNCH if MODULES[name].parent == ROOT / folder and MODULES[name].stem != "__init__"}
    assert floors({name: LAUNCH[name] & within for name in within}) <= FLOORS


def test_no_long_file() -> None:
    long = {name: count for name in LAUNCH if (count := len(MODULES[name].read_text().splitlines())) > LINES}
    assert not long
