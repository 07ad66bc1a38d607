"""A sweep as a grid: what its YAML may say, and the cells that it stands for."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from launch.exploiters.config import Preset, exploiter_config
from launch.exploiters.defences import parse_defence
from launch.exploiters.models import SEGMENTERS, check_model
from launch.methods import PROTECTORS
from launch.processes import Device
from launch.protect import Preset as ProtectPreset
from launch.runtime import Precision
from medveil.config import build
from medveil.dataset import Task
from medveil.errors import UserError

_HOLDOUT = 0.2


@dataclass(frozen=True)
class Method:
    """A protector with the options that a sweep gives it, over a preset (None: the paper's defaults)."""

    name: str
    preset: ProtectPreset | None
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The options as a table shows them."""
        return " ".join(f"{key}={value}" for key, value in self.options.items())


@dataclass(frozen=True)
class Exploiter:
    """An exploiter's model with the options that a sweep gives it, over a preset."""

    preset: Preset
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        rest = [f"{key}={value}" for key, value in self.options.items() if key != "model"]
        return " ".join([str(self.options.get("model", self.preset)), *rest])


@dataclass(frozen=True)
class Cell:
    """One protector on one data set with one seed against one exploiter under one defence.

    ``exploiter`` is None, and ``defence`` empty, for a cell that only protects.
    """

    data: str
    size: int | None
    holdout: float
    method: Method
    exploiter: Exploiter | None
    defence: str
    seed: int

    def columns(self) -> tuple[str, ...]:
        """What identifies the cell in tables: data, protector, options, exploiter, defence, seed."""
        exploiter = self.exploiter.label if self.exploiter else ""
        return self.data, self.method.name, self.method.label, exploiter, self.defence, str(self.seed)


@dataclass(frozen=True)
class Block:
    """One part of a grid: every combination of its entries. ``data`` may be a list.

    ``holdout``: the share that is left out to test on; None: a fifth of a folder, nothing of data with a test part.
    """

    data: list[str]
    protectors: list[Any]
    exploiters: list[Any] = field(default_factory=list)
    defences: list[str] = field(default_factory=lambda: ["none"])
    size: int | None = None
    holdout: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A whole sweep. ``threads`` and ``precision`` hold for every run in it; ``workers`` run side by side on this machine
    (0: inline, one after the other in this process; None: one for each ``threads`` cores)."""

    name: str
    grid: list[Any]
    seeds: list[int] = field(default_factory=lambda: [0])
    threads: int = 1
    precision: Precision = "fp32"
    device: Device = "auto"
    workers: int | None = None
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\ ") or self.name.startswith("."):
            raise ValueError("name must be usable as a folder name")
        if not self.grid or not self.seeds:
            raise ValueError("grid and seeds must not be empty")

    def cells(self) -> list[Cell]:
        """Every cell, in the order of the file. Raises UserError for what a cell's method or exploiter refuses."""
        cells: dict[Cell, None] = {}
        for number, entry in enumerate(self.grid):
            where = f"{self.name}: grid[{number}]"
            if not isinstance(entry, Mapping):
                raise UserError(f"{where} must be a mapping with data, protectors and exploiters")
            values = {**entry, "data": [entry["data"]]} if isinstance(entry.get("data"), str) else dict(entry)
            for cell in _cells_of(build(Block, values, where), self.seeds, where):
                cells[cell] = None
        return list(cells)


def read_sweep(path: Path, changes: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep in a YAML file with ``changes`` over its top level. Raises UserError naming the file."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a sweep file, such as launch/sweeps/demo.yaml") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise UserError(f"{path} must hold a mapping with name and grid")
    return build(Sweep, {"name": path.stem, **values, **(changes or {})}, str(path))


def _cells_of(block: Block, seeds: Sequence[int], where: str) -> Iterator[Cell]:
    methods = [method for entry in block.protectors for method in _methods(entry, where)]
    exploiters = [exploiter for entry in block.exploiters for exploiter in _exploiters(entry, where)]
    for defence in block.defences:
        parse_defence(defence)
    if not methods:
        raise UserError(f"{where}: protectors must not be empty")
    against: list[tuple[Exploiter | None, str]] = [(None, "")]
    if exploiters:
        against = [(exploiter, defence) for exploiter in exploiters for defence in block.defences]
    for data, method, (exploiter, defence), seed in itertools.product(block.data, methods, against, seeds):
        own_test = data.startswith(("phantom:", "medmnist:")) or data.endswith(".npz")
        holdout = (0.0 if own_test else _HOLDOUT) if block.holdout is None else block.holdout
        yield Cell(data, block.size, holdout, method, exploiter, defence, seed)


def _methods(entry: Any, where: str) -> Iterator[Method]:
    for options in _expand(entry, "method", where):
        name, preset = options.pop("method"), options.pop("preset", None)
        if name not in PROTECTORS:
            raise UserError(f"{where}: no method is called {name!r}: choose from {', '.join(PROTECTORS)}")
        cls = PROTECTORS[name]
        if preset is not None and preset not in cls.presets:
            raise UserError(f"{where}: {name} has no preset {preset!r}: choose from {', '.join(cls.presets)}")
        build(cls.Config, {**cls.presets.get(preset, {}), **options}, f"{where}: {name}")
        yield Method(name, preset, _Frozen(options))


def _exploiters(entry: Any, where: str) -> Iterator[Exploiter]:
    for options in _expand(entry, "model", where):
        preset = options.pop("preset", "cpu")
        task: Task = "segmentation" if str(options["model"]).split(":")[0] in SEGMENTERS else "classification"
        config = exploiter_config(task, preset, (64, 64), options)
        check_model(config.model, task, config.width)
        yield Exploiter(preset, _Frozen(options))


def _expand(entry: Any, key: str, where: str) -> Iterator[dict[str, Any]]:
    """A name alone, or a mapping of which list values are expanded to every combination."""
    values = {key: entry} if isinstance(entry, str) else entry
    if not isinstance(values, Mapping) or key not in values:
        raise UserError(f"{where}: {entry!r} must be a name or a mapping with {key!r}")
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for combination in itertools.product(*lists):
        yield dict(zip(values, combination, strict=True))


class _Frozen(dict[str, Any]):
    """Options that can be a part of a cell's identity."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))
