"""Which images belong together, such as those of one patient: told by a table, or by a pattern of their ids."""

import re
from collections.abc import Sequence
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data.tables import read_table


def groups_of(ids: Sequence[str], spec: str) -> dict[str, str]:
    """The group of each of ``ids``.

    ``spec``: a CSV file with the columns id (or the name of a volume) and group, or a regular expression that is found
    in every id; its first parenthesis, or without one what it finds, is the group: ``^([^_]+)_``. Raises UserError for
    an id that has no group.
    """
    path = Path(spec).expanduser()
    found = _of_table(ids, path) if path.suffix.lower() == ".csv" else _of_pattern(ids, spec)
    missing = [sample for sample in ids if sample not in found]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"--groups {spec}: {missing[0]} has no group{more}: name the group of every image")
    return {sample: found[sample] for sample in ids}


def _of_table(ids: Sequence[str], path: Path) -> dict[str, str]:
    """A slice may be named, or its whole volume."""
    groups = read_table(path, "--groups", "group")
    found = {sample: groups.get(sample) or groups.get(sample.rpartition("/")[0]) for sample in ids}
    return {sample: group for sample, group in found.items() if group is not None}


def _of_pattern(ids: Sequence[str], spec: str) -> dict[str, str]:
    try:
        pattern = re.compile(spec)
    except re.error as error:
        raise UserError(
            f"--groups {spec!a} is neither a CSV file nor a regular expression ({error}): give one such as ^([^_]+)_"
        ) from None
    matches = {sample: match for sample in ids if (match := pattern.search(sample))}
    found = {sample: match[1] if pattern.groups else match[0] for sample, match in matches.items()}
    return {sample: group for sample, group in found.items() if group}
