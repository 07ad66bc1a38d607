"""What an audit found, as lines of text."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from medveil.launch.results import CellResult, Outcome
from medveil.metrics import shown


def groups_of(cells: Sequence[CellResult]) -> dict[tuple[str, str], list[CellResult]]:
    """The seeds of each exploiter under each attack."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.exploiter_text, cell.attack), []).append(cell)
    return groups


def table(cells: Sequence[CellResult]) -> list[str]:
    """Lines of text: percent, mean and sample standard deviation over seeds; PSNR and SSIM at the end."""
    rows = [["exploiter", "attack", "metric", "clean", "protected", "best", "inside clean", "inside protected"]]
    for (exploiter, attack), same in groups_of(cells).items():
        clean = [cell.clean for cell in same if cell.clean]
        protected = [cell.protected for cell in same if cell.protected]
        for metric in protected[0].last:
            columns = [(clean, "last"), (protected, "last"), (protected, "best")]
            columns += [(clean, "inside"), (protected, "inside")]
            values = [_spread(outcomes, which, metric) for outcomes, which in columns]
            rows.append([exploiter, attack, metric, *values])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(
        "percent on clean test images after the last epoch; best: the best epoch; inside: on the training images"
    )
    if cells[0].psnr is not None and cells[0].ssim is not None:
        lines.append(
            f"PSNR {cells[0].psnr:.2f} dB, SSIM {cells[0].ssim:.4f} (means over the images that changed)"
            if math.isfinite(cells[0].psnr)
            else "the released images are the originals: nothing changed"
        )
    if alike := {name: value for name, value in cells[0].similarity.items() if name not in ("psnr", "ssim")}:
        said = ", ".join(f"{name} {100 * value:.1f}%" for name, value in alike.items())
        lines.append(f"similarity over at most 256 of them: {said}")
    return lines


def _spread(outcomes: Sequence[Outcome], which: str, metric: str) -> str:
    found: list[dict[str, float]] = [getattr(outcome, which) for outcome in outcomes]
    values = [shown(metric, one[metric]) for one in found if metric in one]
    if not values:
        return "-"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
