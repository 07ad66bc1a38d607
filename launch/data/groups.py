"""Which images belong together, such as those of one patient: told by a table, or by a pattern of their ids."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.reading import read_bytes

_BYTES = 256 << 20
_COLUMNS = ("id", "group")


def groups_of(ids: Sequence[str], told: str) -> dict[str, str]:
    """The group of each of ``ids``.

    ``told``: a CSV file with the columns id and group, or a regular expression that is found in every id; its first
    parenthesis, or without one what it finds, is the group: ``^([^_]+)_``. Raises UserError for an id that has
    no group.
    """
    path = Path(told).expanduser()
    found = _of_table(path) if path.suffix.lower() == ".csv" else _of_pattern(ids, told)
    missing = [sample for sample in ids if sample not in found]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"--groups {told}: {missing[0]} has no group{more}: name the group of every image")
    return {sample: found[sample] for sample in ids}


def _of_table(path: Path) -> dict[str, str]:
    try:
        text = read_bytes(path, _BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise UserError(f"--groups {path} does not exist: give a CSV file with the columns id and group") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--groups {path} cannot be read ({error}): save it as CSV in UTF-8") from None
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        sample, group = (row.get(name) for name in _COLUMNS)
        if not sample or not group:
            raise UserError(f"--groups {path}, line {number}: the columns id and group must be filled")
        if found.setdefault(sample, group) != group:
            raise UserError(f"--groups {path}, line {number}: {sample} is in two groups: {found[sample]} and {group}")
    return found


def _of_pattern(ids: Sequence[str], told: str) -> dict[str, str]:
    try:
        pattern = re.compile(told)
    except re.error as error:
        raise UserError(
            f"--groups {told!a} is neither a CSV file nor a regular expression ({error}): give one such as ^([^_]+)_"
        ) from None
    matches = {sample: match for sample in ids if (match := pattern.search(sample))}
    found = {sample: match[1] if pattern.groups else match[0] for sample, match in matches.items()}
    return {sample: group for sample, group in found.items() if group}
