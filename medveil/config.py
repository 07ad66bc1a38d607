"""Configurations are frozen dataclasses whose fields say what they mean and which values they take.

:func:`setting` declares a field, :class:`Settings` checks its range, :func:`build` makes an instance from what a person
typed and names what is wrong. Command lines make their flags from the same fields.
"""

import sys
from collections.abc import Mapping
from copy import copy
from dataclasses import Field, asdict, dataclass, field, fields
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from medveil.errors import UserError

C = TypeVar("C")
T = TypeVar("T")

_ABOUT = "about"

_adapters: dict[Any, TypeAdapter[Any]] = {}
"""Of classes that were built before: a sweep builds the same few for each of its cells."""


def _number(value: Any) -> Any:
    """'4/255' and '1.6/255' as numbers; anything else as it is."""
    if isinstance(value, str) and "/" in value:
        above, _, below = value.partition("/")
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{value!r} is not a number or a fraction such as 4/255") from error
    return value


Levels = Annotated[float, BeforeValidator(_number)]
"""A budget on the [0, 1] scale that may be typed as grey levels over 255: ``4/255``."""


@dataclass(frozen=True)
class About:
    """What a field means to a person, and which numbers it takes.

    ``low`` and ``high`` are allowed themselves, ``above`` and ``below`` are not; ``why`` says what goes wrong below
    ``low``. ``group``: the heading that its flag stands under; ``metavar``: what stands for its value there.
    """

    text: str
    unit: str = ""
    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    why: str = ""
    group: str = ""
    metavar: str = ""

    def takes(self, number: float) -> bool:
        """Whether ``number`` is finite and in range."""
        return (
            # Infinite, not a number, or a whole number beyond every float.
            abs(number) <= sys.float_info.max
            and (self.low is None or number >= self.low)
            and (self.above is None or number > self.above)
            and (self.high is None or number <= self.high)
            and (self.below is None or number < self.below)
        )


def about(text: str, **more: Any) -> Mapping[str, Any]:
    """The metadata of a field that has no default; ``more`` as in :class:`About`."""
    return {_ABOUT: About(text, **more)}


def setting(
    default: T,
    text: str,
    *,
    unit: str = "",
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    why: str = "",
    group: str = "",
    metavar: str = "",
) -> T:
    """A field of a configuration: its default, and what :class:`About` keeps of it."""
    told = about(text, unit=unit, low=low, above=above, high=high, below=below, why=why, group=group, metavar=metavar)
    if isinstance(default, list | dict):
        return field(default_factory=partial(copy, default), metadata=told)
    return field(default=default, metadata=told)


SMALLEST_SIDE, LARGEST_SIDE = 16, 4096
"""Of images that are resized, in pixels."""


def side(text: str, group: str = "") -> int | None:
    """The field of the side in pixels that images are resized to; None: each keeps its own, or the set's default."""
    return setting(None, text, unit="pixels", low=SMALLEST_SIDE, high=LARGEST_SIDE, group=group)


def budget(default: T, text: str, *, high: float = 1.0) -> T:
    """The field of a bound on the change of a pixel, on the [0, 1] scale: at least one grey level."""
    why = "a smaller bound does not survive saving as 8-bit images"
    return setting(default, text, low=1 / 255, high=high, why=why, group="noise")


def about_of(item: Field[Any]) -> About:
    """What the field ``item`` was declared with."""
    told: About = item.metadata.get(_ABOUT, About(""))
    return told


def shown(item: Field[Any], value: Any) -> str:
    """``value`` of the field ``item`` as a person would type it: 4/255 for 0.01568... of a budget."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        short = value == round(value, 3) or Levels not in (item.type, *get_args(item.type))
        return f"{value:g}" if short else f"{value * 255:g}/255"
    return str(value)


def range_of(item: Field[Any]) -> str:
    """The numbers that the field ``item`` takes, in words; empty where any will do."""
    told = about_of(item)
    ends = (("at least", told.low), ("above", told.above), ("at most", told.high), ("below", told.below))
    if told.low is not None and told.high is not None:
        words = f"between {shown(item, told.low)} and {shown(item, told.high)}"
    else:
        words = " and ".join(f"{word} {shown(item, end)}" for word, end in ends if end is not None)
    return f"{words} {told.unit}".strip() if words else ""


@dataclass(frozen=True)
class Settings:
    """Base of every configuration: unknown keys are refused, and numbers outside the range of their field.

    A subclass with checks across fields makes them in its own ``__post_init__``, after this one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for item in fields(self):
            if (wrong := objection(item, getattr(self, item.name))) is not None:
                raise UserError(f"{item.name} {wrong}")


def objection(item: Field[Any], value: Any) -> str | None:
    """What is wrong with ``value`` for the field ``item``: "must be at least 1, not 0"; None where nothing is."""
    told = about_of(item)
    if isinstance(value, tuple):
        return next((wrong for one in value if (wrong := objection(item, one)) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or told.takes(value):
        return None
    why = f": {told.why}" if told.why and told.low is not None and value < told.low else ""
    return f"must be {range_of(item) or 'a finite number'}, not {shown(item, value)}{why}"


def build(cls: type[C], values: Mapping[str, Any], what: str) -> C:
    """An instance of the dataclass ``cls`` from ``values`` (strings are read as the field's type).

    ``what`` names the thing in the message. Raises :class:`UserError` with the offending key for unknown keys and for
    values that the field or the class's ``__post_init__`` refuses.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"{what} has no option {key!r}; it has: {', '.join(known)}")
    try:
        built: C = _adapter(cls).validate_python(dict(values))
        return built
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        said = f" {key} = {first['input']!r}" if key else ""
        raise UserError(f"{what}:{said}: {reason}" if said else f"{what}: {reason}") from None


def _adapter(cls: Any) -> TypeAdapter[Any]:
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain values, fit for JSON, in the order of its fields."""
    return asdict(config)
