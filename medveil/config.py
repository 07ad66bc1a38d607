"""Configurations are frozen dataclasses; this turns what a person typed into one, and names what is wrong."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from medveil.errors import UserError

C = TypeVar("C")


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

STRICT = ConfigDict(extra="forbid")
"""For ``__pydantic_config__`` of every configuration: unknown keys are refused."""


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
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        said = f" {key} = {first['input']!r}" if key else ""
        raise UserError(f"{what}:{said}: {reason}" if said else f"{what}: {reason}") from None


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain values, fit for JSON, in the order of its fields."""
    return asdict(config)
