"""Tables that tell something of each image: CSV files with two columns."""

import csv
import io
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.reading import read_bytes

_BYTES = 256 << 20


def read_table(path: Path, flag: str, column: str) -> dict[str, str]:
    """What the CSV file ``path`` says under ``column`` of each ``id``. ``flag``: that names it, for messages.

    Raises UserError for a file that is none, and for an id that has no value or two.
    """
    try:
        text = read_bytes(path, _BYTES).decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows, columns = list(table), table.fieldnames or ()
    except FileNotFoundError:
        raise UserError(f"{flag} {path} does not exist: give a CSV file with the columns id and {column}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{flag} {path} cannot be read ({error}): save it as CSV in UTF-8") from None
    if missing := {"id", column}.difference(columns):
        raise UserError(f"{flag} {path} has no column {min(missing)}: begin it with the line id,{column}")
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        sample, value = row.get("id"), row.get(column)
        if not sample or not value:
            raise UserError(f"{flag} {path}, line {number}: the columns id and {column} must be filled")
        if found.setdefault(sample, value) != value:
            raise UserError(
                f"{flag} {path}, line {number}: {sample} has two values of {column}: {found[sample]} and {value}"
            )
    return found
