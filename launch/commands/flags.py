"""From the field of a configuration to a flag: its help, unit, choices and range."""

import argparse
from argparse import SUPPRESS
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from medveil.config import Levels, Settings, about_of, objection, shown
from medveil.errors import UserError
from medveil.launch.protect.methods import settings_of

DRY_RUN = "only say what would be done, and about how long it would take"


class Flags:
    """The flags of a command, under ``headings`` in this order, and what the command line says of them."""

    def __init__(self, parser: argparse.ArgumentParser, *headings: str) -> None:
        self.parser = parser
        self._groups = {heading: parser.add_argument_group(heading) for heading in headings}

    def under(self, heading: str) -> argparse._ArgumentGroup:
        """The group of the flags under ``heading``."""
        if heading not in self._groups:
            self._groups[heading] = self.parser.add_argument_group(heading)
        return self._groups[heading]

    def add(
        self,
        settings: type[Settings],
        heading: str = "",
        *,
        skip: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """A flag for every field of ``settings`` that has help, but for those of ``skip``.

        ``heading``: for fields that name no group. ``defaults``: what runs where it is not the field's own default.
        """
        for item in fields(settings):
            if about_of(item).text and item.name not in skip:
                default = (defaults or {}).get(item.name, item.default)
                add_flag(self.under(about_of(item).group or heading), item, _place(settings, item.name), default)

    @staticmethod
    def given(args: argparse.Namespace, settings: type[Settings]) -> dict[str, Any]:
        """The fields of ``settings`` that the command line gives, by name."""
        given = {item.name: _place(settings, item.name) for item in fields(settings)}
        return {name: getattr(args, place) for name, place in given.items() if hasattr(args, place)}


def peek(argv: Sequence[str], *settings: type[Settings]) -> Mapping[str, str | None]:
    """What ``argv`` says of the fields of ``settings``, and names first without a flag ("positional"), as text."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("positional", nargs="?")
    names = {item.name for one in settings for item in fields(one)}
    for name in sorted(names):
        first.add_argument(f"--{name.replace('_', '-')}", nargs="?", dest=name)
    try:
        found = vars(first.parse_known_args(list(argv))[0])
    except argparse.ArgumentError:
        found = dict.fromkeys(names)
    return {**found, "positional": found.get("positional")}


def add_flag(group: argparse._ArgumentGroup, item: Field[Any], place: str, default: Any) -> None:
    """The flag of the field ``item``; what it is given is read as the field's type and kept at ``place``."""
    kinds, about = _kinds(item.type), about_of(item)
    has_default = default not in (None, (), MISSING)
    more: dict[str, Any] = {"nargs": "?", "const": True} if bool in kinds else {}
    if list in kinds:
        more, has_default = {"action": "append"}, False
    text = f"{about.text} (default: {shown(item, default)})" if has_default else about.text
    group.add_argument(
        f"--{item.name.replace('_', '-')}",
        dest=place,
        default=SUPPRESS,
        type=lambda typed: read(item, typed),
        metavar=about.metavar or _metavar(kinds, about.unit),
        help=text.replace("%", "%%"),
        **more,
    )


def a_method(typed: str) -> str:
    """``typed``, if it is a method or a file that defines one. Raises ``argparse.ArgumentTypeError`` else."""
    try:
        settings_of(typed)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return typed


def read(item: Field[Any], typed: str) -> Any:
    """``typed`` as a value of the field ``item``. Raises ``argparse.ArgumentTypeError`` for what it does not take."""
    kinds = _kinds(item.type)
    if list in kinds:
        return typed
    parts = [part.strip() for part in typed.split(",") if part.strip()]
    if tuple in kinds and not parts:
        raise argparse.ArgumentTypeError("is empty: name at least one")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(item.type)  # type: ignore[arg-type]
        value = adapter.validate_python(parts if tuple in kinds else typed)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{typed!r} {_expected(kinds)}") from error
    if (wrong := objection(item, value)) is not None:
        raise argparse.ArgumentTypeError(wrong)
    return value


def _place(settings: type[Settings], name: str) -> str:
    # Two configurations may have fields of one name.
    return f"{settings.__name__}.{name}"


def _kinds(of: Any) -> list[Any]:
    """What a field's type is made of: ``[int]`` for ``int | None``, the values of a ``Literal``, ``[tuple, int]``..."""
    if of is Levels:
        return [Levels]
    origin = get_origin(of)
    if origin is Literal:
        return list(get_args(of))
    if origin is None:
        return [] if of is NoneType else [of]
    own = [origin] if origin in (tuple, list) else []
    return [*own, *(kind for part in get_args(of) if part is not ... for kind in _kinds(part))]


def _choices(kinds: list[Any]) -> list[str]:
    return [kind for kind in kinds if isinstance(kind, str)]


def _metavar(kinds: list[Any], unit: str) -> str:
    if _choices(kinds):
        return "|".join(_choices(kinds))
    names = {bool: "true|false", tuple: "LIST", Levels: "N/255", Path: "PATH", int: "N", float: "X"}
    return unit.upper() or next((name for kind, name in names.items() if kind in kinds), "TEXT")


def _expected(kinds: list[Any]) -> str:
    if _choices(kinds):
        return f"is none of {', '.join(_choices(kinds))}"
    if bool in kinds:
        return "is neither true nor false"
    if Levels in kinds:
        return "is not a number or a fraction such as 4/255"
    return "is not a whole number" if int in kinds else "is not a number" if float in kinds else "cannot be read"
