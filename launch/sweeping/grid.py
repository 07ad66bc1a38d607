"""A sweep as a grid: what its YAML may say, and the cells that it stands for."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from medveil.config import Settings, about, build, setting, side
from medveil.errors import UserError
from medveil.launch.exploiters import attacks
from medveil.launch.exploiters.config import Preset, exploiter_config
from medveil.launch.exploiters.names import SEGMENTERS, check_model
from medveil.launch.protect.config import PartOptions
from medveil.launch.protect.config import Preset as ProtectPreset
from medveil.launch.protect.methods import settings_of
from medveil.launch.protect.own import is_file
from medveil.launch.reading import read_bytes
from medveil.launch.report.config import Layout
from medveil.launch.results import Exploiter, Options, Portion
from medveil.launch.running.machine import CHECKPOINT_SECONDS, MOST_THREADS, Device, Precision
from medveil.task import Task

_HOLDOUT = 0.2
_BYTES = 16 << 20
_NAME_BYTES = 150

PART = tuple(item.name for item in fields(PartOptions))
"""What an entry of ``protectors`` may say besides its method's own options."""

SizePreset = Literal["cpu", "gpu", "paper", "demo"]


@dataclass(frozen=True)
class Method:
    """A protector with the options that a sweep gives it, over a preset (None: the paper's defaults)."""

    name: str
    preset: ProtectPreset | None
    options: Options
    part: Options = field(default_factory=Options)
    """What of the data is protected: ``classes``, ``share``, ``support``, ``support_classes`` of the job."""

    @property
    def shown(self) -> Options:
        """The options as a table shows them; a demonstration is called one."""
        demo = {"preset": "demo"} if self.preset == "demo" and settings_of(self.name).presets["demo"] else {}
        return Options({**demo, **self.options, **self.part})


@dataclass(frozen=True)
class Cell:
    """One protector on one data set with one seed against one exploiter under one attack.

    ``exploiter`` is None, and ``attack`` empty, for a cell that only protects. ``more`` is added to the seed of the
    training alone: the release is that of ``seed``. ``deepens``: it is one of the attacks of a word, with one seed, of
    which the worst are trained with more seeds.
    """

    data: str
    size: int | None
    holdout: float
    method: Method
    exploiter: Exploiter | None
    attack: str
    seed: int
    more: int = 0
    deepens: bool = field(default=False, compare=False)

    @property
    def training_seed(self) -> int:
        return self.seed + self.more

    def names(self) -> list[str]:
        """The data that the cell needs, as the grid names it."""
        support = self.method.part.get("support")
        authorised = self.exploiter.authorised if self.exploiter else None
        return [self.data, *(str(data) for data in (support, authorised) if data is not None)]

    def columns(self) -> tuple[str, ...]:
        """What identifies the cell in tables: data, protector, options, exploiter, attack, seed."""
        exploiter = str(self.exploiter) if self.exploiter else ""
        return self.data, self.method.name, str(self.method.shown), exploiter, self.attack, str(self.training_seed)


@dataclass(frozen=True)
class Block(Settings):
    """One part of a grid: every combination of its entries. ``data`` may be a list."""

    data: list[str] = field(metadata=about("data sets, as medveil protect names them or as folders do"))
    protectors: list[Any] = field(metadata=about("names of methods, or mappings with method and its options"))
    exploiters: list[Any] = setting([], "names of models, or mappings with model and its options")
    attacks: str | list[str] = setting(["none"], "attacks on the protection: a list, standard or full")
    seeds: list[int] = setting([], "of the sweep's seeds those that this block takes; by default all")
    size: int | None = side("side that the images of folders are resized to")
    holdout: float | None = setting(
        None, "share that is left out to test on; by default a fifth of a folder without a test part", low=0, below=1
    )


@dataclass(frozen=True)
class Sweep(Settings):
    """A whole sweep."""

    name: str = field(metadata=about("name of the sweep's folder"))
    grid: list[Any] = field(metadata=about("blocks of data, protectors, exploiters and attacks"))
    seeds: tuple[int, ...] = setting((0,), "seeds of every cell, such as 0,1,2", low=0)
    size: int | None = side("side that the images of folders are resized to, in blocks that name none")
    preset: SizePreset | None = setting(None, "preset of the protectors and exploiters that name none")
    presets: dict[SizePreset, dict[str, Any]] = setting({}, "what else a preset changes (seeds, size)")
    folders: dict[str, str | None] = setting({}, "where data is that the grid names; cells without it are skipped")
    published: str | None = setting(None, "a CSV file of values to show beside ours")
    layout: dict[str, Any] = setting({}, "of a table as the paper has it: rows, columns, values, only, average")
    threads: int = setting(1, "CPU threads of each run", low=1, high=MOST_THREADS)
    precision: Precision = setting("fp32", "precision inside networks")
    device: Device = setting("auto", "where the runs compute; auto: on a GPU if there is one")
    workers: int | None = setting(
        None,
        "runs side by side on this machine; by default one for each core, on a GPU one alone; 0: one after the other "
        "in this process",
        low=0,
    )
    checkpoint_seconds: float = setting(CHECKPOINT_SECONDS, "time between checkpoints", unit="seconds", low=0)
    slurm: dict[str, Any] = setting({}, "what is asked of SLURM")

    def __post_init__(self) -> None:
        super().__post_init__()
        unusable = set(self.name) & set("/\\ ") or self.name.startswith(".") or not self.name.isprintable()
        if not self.name or unusable or len(self.name.encode()) > _NAME_BYTES:
            raise ValueError("name must be usable as a folder name")
        if not self.grid or not self.seeds:
            raise ValueError("grid and seeds must not be empty")

    def laid_out(self) -> Layout | None:
        """How the paper lays the table out, if the sweep says. Raises UserError for what a layout does not have."""
        return build(Layout, self.layout, f"{self.name}: layout") if self.layout else None

    def cells(self) -> list[Cell]:
        """Every cell, in the order of the file. Raises UserError for what a cell's method or exploiter refuses, and
        where no block takes any of the seeds.
        """
        self.laid_out()
        cells = list(dict.fromkeys(cell for where, block in self._blocks() for cell in self._cells_of(block, where)))
        if not cells:
            raise UserError(f"{self.name}: no block takes any of the seeds {', '.join(map(str, self.seeds))}")
        return cells

    def names(self) -> set[str]:
        """The data that the grid names, also in blocks that take none of the seeds."""
        every = ((where, replace(block, seeds=[])) for where, block in self._blocks())
        return {name for where, block in every for cell in self._cells_of(block, where) for name in cell.names()}

    def place(self, data: str) -> str:
        """Where ``data`` of the grid is: the user's folder, or what the grid itself names."""
        return self.folders.get(data) or data

    def missing(self, data: str) -> bool:
        """Whether the grid names ``data`` whose folder the user has not given."""
        return data in self.folders and self.folders[data] is None

    def lacks(self, cell: Cell) -> str | None:
        """The data that ``cell`` needs and whose folder the user has not given, or None."""
        return next((data for data in cell.names() if self.missing(data)), None)

    def _blocks(self) -> Iterator[tuple[str, Block]]:
        """Each with where it stands, for messages."""
        for number, entry in enumerate(self.grid):
            where = f"{self.name}: grid[{number}]"
            if not isinstance(entry, Mapping):
                raise UserError(f"{where} must be a mapping with data, protectors and exploiters")
            if "defences" in entry:
                raise UserError(f"{where}: 'defences' are called attacks now")
            values = {**entry, "data": [entry["data"]]} if isinstance(entry.get("data"), str) else dict(entry)
            yield where, build(Block, values, where)

    def _cells_of(self, block: Block, where: str) -> Iterator[Cell]:
        methods = [method for entry in block.protectors for method in _methods(entry, self.preset, where)]
        exploiters = [one for entry in block.exploiters for one in _exploiters(entry, self.preset or "cpu", where)]
        if not methods or not block.data:
            raise UserError(f"{where}: {'data' if methods else 'protectors'} must not be empty")
        against: list[tuple[Exploiter | None, str]] = [(None, "")]
        if exploiters:
            against = list(itertools.product(exploiters, attacks.parse_attacks(block.attacks)))
        size = block.size or self.size
        seeds = [seed for seed in self.seeds if seed in (block.seeds or self.seeds)]
        for data, method, (exploiter, attack), seed in itertools.product(block.data, methods, against, seeds):
            place = self.place(data)
            own_test = place.startswith(("phantom:", "medmnist:")) or place.endswith(".npz")
            holdout = (0.0 if own_test else _HOLDOUT) if block.holdout is None else block.holdout
            word = isinstance(block.attacks, str) and attacks.is_a_word(block.attacks)
            deepens = word and len(seeds) == 1 and exploiter is not None and exploiter.authorised is None
            yield Cell(data, size, holdout, method, exploiter, attack, seed, deepens=deepens)


class _Loader(yaml.SafeLoader):
    """Reads what YAML of old takes for a number to the base of 60, such as the time 1:30:00, as it stands."""

    def number(self, node: yaml.ScalarNode) -> int | str:
        text = str(self.construct_scalar(node))
        return text if ":" in text else self.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.number)


def read_sweep(path: Path, changes: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep in a YAML file with ``changes`` over its top level and its preset's. Raises UserError naming the file.

    ``folders`` of ``changes`` are added to the file's; ``published`` is found beside the file.
    """
    changes = dict(changes or {})
    try:
        values = yaml.load(read_bytes(path, _BYTES), _Loader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: {error.strerror}: name a sweep file, such as launch/sweeps/demo.yaml") from error
    except RecursionError:
        raise UserError(f"{path} is not valid YAML: it is nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise UserError(f"{path} must hold a mapping with name and grid")
    told = changes.pop("folders", {})
    values = {"name": path.stem, **values, **changes}
    preset = values.get("preset")
    sized = _mapping(values.get("presets")).get(preset) if isinstance(preset, str) else None
    values = {**values, **_mapping(sized), **changes}
    if told:
        values["folders"] = {**_mapping(values.get("folders")), **told}
    if values.get("published") is not None:
        values["published"] = str(path.parent.absolute() / str(values["published"]))
    return build(Sweep, values, str(path))


def _mapping(value: Any) -> Mapping[Any, Any]:
    """``value``, or nothing where it is no mapping: building the sweep says so."""
    return value if isinstance(value, Mapping) else {}


def _name(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} {value!r} must be a name")
    return value


def _methods(entry: Any, default: SizePreset | None, where: str) -> Iterator[Method]:
    for options in _expand(entry, "method", where):
        name, preset = _name(options.pop("method"), "method", where), options.pop("preset", default)
        if is_file(name):
            raise UserError(f"{where}: {name}: a sweep runs no files of code: enter the method in the project")
        try:
            cls = settings_of(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if preset is not None and _name(preset, "preset", where) not in cls.presets:
            raise UserError(f"{where}: {name} has no preset {preset!r}: choose from {', '.join(cls.presets)}")
        part = {key: options.pop(key) for key in PART if key in options}
        build(cls, {**cls.presets.get(preset, {}), **options}, f"{where}: {name}")
        yield Method(name, preset, Options(options), Options(part))


def _exploiters(entry: Any, default: Preset, where: str) -> Iterator[Exploiter]:
    for options in _expand(entry, "model", where):
        preset, part = options.pop("preset", default), options.pop("part", "all")
        authorised = options.pop("authorised", None)
        for key, value in (("model", options["model"]), ("preset", preset), ("part", part)):
            _name(value, key, where)
        if authorised is not None:
            _name(authorised, "authorised", where)
        if part not in get_args(Portion):
            raise UserError(f"{where}: part {part!r}: choose from {', '.join(get_args(Portion))}")
        task: Task = "segmentation" if str(options["model"]).split(":")[0] in SEGMENTERS else "classification"
        config = exploiter_config(task, preset, (64, 64), options)
        check_model(config.model, task, config.width)
        if authorised is not None and task != "segmentation":
            raise UserError(f"{where}: authorised: {authorised} goes with a model for segmentation, not {config.model}")
        model = str(options.pop("model"))
        yield Exploiter(model, Options(options), preset, part, authorised)


def _expand(entry: Any, key: str, where: str) -> Iterator[dict[str, Any]]:
    """A name alone, or a mapping of which list values are expanded to every combination."""
    values = {key: entry} if isinstance(entry, str) else entry
    if not isinstance(values, Mapping) or key not in values:
        raise UserError(f"{where}: {entry!r} must be a name or a mapping with {key!r}")
    if "seed" in values:
        raise UserError(f"{where}: {values[key]} has no seed of its own: give the sweep or this block seeds: [0, 1]")
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for combination in itertools.product(*lists):
        for name, value in zip(values, combination, strict=True):
            if not isinstance(name, str) or not isinstance(value, str | int | float | None):
                raise UserError(f"{where}: {name!s} = {value!r}: give a value, or a list of values to try")
        yield dict(zip(values, combination, strict=True))
