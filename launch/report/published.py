"""Published values to show beside ours, read from a CSV file."""

import csv
import io
import math
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.reading import read_bytes

_BYTES = 16 << 20

Published = dict[tuple[str, str, str | None, str, str, str], float]
"""(data, protector, options, exploiter, attack, metric) -> percent (``psnr``: dB); options None: whatever they are."""

COLUMNS = ["data", "protector", "exploiter", "attack", "metric", "value"]


def read_published(path: Path) -> Published:
    """The values of a CSV file with the columns data, protector, exploiter, attack, metric, value (percent).

    A file that tells a protector's settings apart has the column options too. ``psnr`` (dB) and ``ssim`` need no
    exploiter.
    A row with an empty value is a cell that was not published. Raises :class:`UserError` naming file and line.
    """
    values: Published = {}
    try:
        with io.StringIO(read_bytes(path, _BYTES).decode("utf-8-sig"), newline="") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames is None or not set(COLUMNS) <= set(rows.fieldnames):
                raise UserError(f"{path}: the first line must name the columns {', '.join(COLUMNS)}")
            for row in rows:
                if None in row or None in row.values():
                    raise UserError(f"{path}, line {rows.line_num} has not as many columns as the first line")
                if not row["value"]:
                    continue
                cell = (row["data"], row["protector"], row.get("options"), row["exploiter"])
                key = (*cell, row["attack"] or "none", row["metric"])
                try:
                    values[key] = float(row["value"])
                except ValueError:
                    raise UserError(f"{path}, line {rows.line_num}: {row['value']!r} is not a number") from None
                if not math.isfinite(values[key]):
                    raise UserError(f"{path}, line {rows.line_num}: {row['value']!r} is not a finite number")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the published values in {path}: {error}") from error
    return values
