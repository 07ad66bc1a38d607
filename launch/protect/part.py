"""Protecting a part of a data set: some of its classes, a share of its samples, or a class beside another set's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medveil import keyed
from medveil.dataset import Dataset, Subset
from medveil.errors import UserError
from medveil.launch.data import Opener, Source
from medveil.launch.data.combined import Combined, Formed
from medveil.launch.protect.config import PartOptions
from medveil.launch.release.private import Scope
from medveil.runtime import batches

_CHUNK = 1024


@dataclass(frozen=True)
class Chosen:
    """``indices``: the samples that get noise. ``fit``: what the method is fitted on. ``numbers``: what the fit calls
    each class of the data (-1: it knows no such class), or None where it calls them alike. ``identity``: of these
    choices, plain values for the run. ``scope``: of both, for the private manifest. ``notes``: lines for the screen.
    """

    indices: list[int]
    fit: Dataset
    numbers: tuple[int, ...] | None
    identity: dict[str, Any]
    scope: Scope
    notes: list[str]


def choose(
    source: Source, indices: Sequence[int], options: PartOptions, seed: int, opener: Opener | None = None
) -> Chosen:
    """What of ``indices`` of ``source`` is protected, and what the method is fitted on.

    With classes alone the fit sees all ``indices`` (the whole set is at hand, SALM D.1). With a share it sees the share
    alone, drawn by ``seed`` and the ids and nested, so that 20% lies within 40% (7.2). With a stand-in (--support)
    it sees the classes and the stand-in's samples, and none of the data's other classes (7.1).
    Raises UserError for options that do not fit the data.
    """
    if options.support_classes and options.support is None:
        raise UserError("--support-classes goes with --support DATA, the set that has these classes")
    names = source.class_names
    if (options.classes or options.support) and source.data.task != "classification":
        flag = "--classes" if options.classes else "--support"
        raise UserError(f"{flag} is for sets with one class for each image: {source.spec} is {source.data.task}")
    numbers = class_numbers(options.classes, names, source.data.num_classes, source.spec, "--classes")
    if options.support is not None and len(numbers) == source.data.num_classes > 1:
        raise UserError("--support stands in for the classes that one does not have: say with --classes which are own")
    known = _share(source.data.ids, indices, options.share, seed)
    own = set(numbers)
    # Reading targets of every sample reads its image too: not where every class is meant.
    mine = known if len(own) == source.data.num_classes else _of_classes(source.data, known, own)
    if not mine and options.share != 0:
        raise UserError(f"{source.spec}: none of the chosen samples is of these classes: choose others, or more")
    identity: dict[str, Any] = {"classes": numbers, "share": options.share}
    said = [names[i] if names else str(i) for i in numbers]
    scope = Scope(tuple(said) if options.classes else None, options.share)
    notes = [f"{len(mine)} of {len(indices)} images get noise, the others are released as they are"]
    if options.support is None:
        return Chosen(mine, Subset(source.data, known), None, identity, scope, notes)
    stand_in = (opener or Opener()).open(options.support, size=source.data.size[0])
    fit, renumbered, theirs = _combined(source, mine, numbers, stand_in, options)
    identity["support"] = [stand_in.fingerprint, theirs]
    notes.append(f"the fit sees them and {len(fit) - len(mine)} images of {len(theirs)} classes of {stand_in.name}")
    return Chosen(mine, fit, renumbered, identity, scope, notes)


def class_numbers(asked: Sequence[str], names: list[str] | None, count: int, spec: str, flag: str) -> list[int]:
    """The numbers of the classes called ``asked`` (all for none), ascending. Raises UserError for an unknown one."""
    exactly = {name: number for number, name in enumerate(names or [])}
    by_name = {name.lower(): number for name, number in exactly.items()}
    found = set()
    for one in asked:
        number = exactly.get(one, by_name.get(one.lower(), int(one) if one.isdecimal() else -1))
        if not 0 <= number < count:
            known = "; ".join(f"{i} {name}" for i, name in enumerate(names)) if names else f"0 to {count - 1}"
            raise UserError(f"{flag}: {spec} has no class {one!r}: give names or numbers of {known}")
        found.add(number)
    return sorted(found) or list(range(count))


def listed(text: object) -> tuple[str, ...]:
    """``a,b`` (or a number, as YAML reads one) as its parts."""
    return tuple(part.strip() for part in str(text).split(",") if part.strip())


def part_options(values: Mapping[str, Any], place: Callable[[str], str]) -> PartOptions:
    """As an entry of a sweep says it; ``place`` tells where the user has a data set of this name."""
    given: dict[str, Any] = {key: listed(value) if key.endswith("classes") else value for key, value in values.items()}
    if given.get("support") is not None:
        given["support"] = place(str(given["support"]))
    return PartOptions(**given)


def _share(ids: Sequence[str], indices: Sequence[int], share: float | None, seed: int) -> list[int]:
    if share is None or share == 100:
        return list(indices)
    draws = keyed.words(seed, "share", 0, keyed.keys_of([ids[i] for i in indices]), ()).tolist()
    order = sorted(zip(draws, (ids[i] for i in indices), indices, strict=True))
    return sorted(index for _, _, index in order[: round(len(indices) * share / 100)])


def _of_classes(data: Dataset, indices: Sequence[int], classes: set[int]) -> list[int]:
    found: list[int] = []
    for some in batches(indices, _CHUNK):
        targets = data.read(some).targets.tolist()
        found += [index for index, target in zip(some, targets, strict=True) if target in classes]
    return found


def _combined(
    source: Source, mine: Sequence[int], numbers: list[int], stand_in: Source, options: PartOptions
) -> tuple[Combined, tuple[int, ...], list[int]]:
    """The fit's data, what it calls the classes of ``source``, and which of the stand-in's are in it."""
    theirs = stand_in.data
    if theirs.task != "classification":
        raise UserError(f"--support {stand_in.spec} is {theirs.task}: give a set with one class for each image")
    wanted = class_numbers(
        options.support_classes, stand_in.class_names, theirs.num_classes, stand_in.spec, "--support-classes"
    )
    chosen = list(range(len(theirs)))
    if len(wanted) < theirs.num_classes:
        chosen = _of_classes(theirs, chosen, set(wanted))
    ours = tuple(len(wanted) + numbers.index(i) if i in numbers else -1 for i in range(source.data.num_classes))
    called = tuple(wanted.index(i) if i in wanted else -1 for i in range(theirs.num_classes))
    formed = Formed(Subset(theirs, chosen), (source.data.channels, *source.data.size), "support/")
    parts = (Subset(source.data, mine), formed)
    return Combined(parts, (ours, called), len(wanted) + len(numbers)), ours, wanted
