"""What share of a copy's bandwidth each kernel is to reach on an H100, predicted from the counts of its machine code:
``python -m benchmarks.predicted`` writes the table into docs/speed.md.

The model has two times: the bytes that the kernels move over the bandwidth of a copy, and the warp instructions that
they issue over the rate at which the multiprocessors issue them. At best one hides behind the other entirely, at worst
not at all. Latency, caches, launches and unequal loads are left out. Instructions are those of
``tests/kernels/budgets.json`` (sm_90).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BUDGETS, PAGE = ROOT / "tests/kernels/budgets.json", ROOT / "docs/speed.md"
BEGIN, END = "<!-- predicted: begin -->", "<!-- predicted: end -->"

COPY = 0.9 * 3.35e12  # bytes a second, of an H100 SXM's HBM3: what copies reach of the data sheet
ISSUE = 0.7 * 132 * 4 * 1.755e9  # warp instructions a second: multiprocessors, schedulers, clock; 0.7 is an assumption
ROUNDS = 6  # of a top-k search over a row, an assumption: half of bisection's 11 to 12.5
BLOCKS = 8  # that a program of the last launch for long rows writes


class Row(NamedTuple):
    """``kernels``: what is launched, with the turns of its main loop and of all its code that a warp makes, for how
    many times its elements. ``bytes``: that the operation needs for an element, whoever computes it; ``again``: that
    these kernels move beyond that."""

    what: str
    bytes: float
    kernels: tuple[tuple[str, int, int, int], ...]
    again: float = 0.0


def _loop(kernel: str) -> tuple[tuple[str, int, int, int], ...]:
    return ((kernel, 1, 0, 1),)


def _row(kernel: str) -> tuple[tuple[str, int, int, int], ...]:
    return ((kernel, ROUNDS - 1, 1, 1),)


def _long(size: str) -> tuple[tuple[str, int, int, int], ...]:
    # A warp's share of a block is half of its share of the candidates, as the counts of both are to 512 and 1024.
    return ((f"topk {size}: topk_gather", 0, 1, 1), (f"topk {size}: topk_settle", ROUNDS - 1, 1, BLOCKS // 2))


ROWS = (
    Row("clip forward, codes on the way, 1 channel", 18, _loop("clip grey: clip_walk")),
    Row("clip forward, codes on the way, 3 channels", 50, _loop("clip colour: clip_walk")),
    Row("the same in separate planes", 50, _loop("clip colour planes: clip_walk")),
    Row("the same, tanh", 49, _loop("clip colour tanh: clip_walk")),
    Row("clip forward, maps given (UMed's call), 1 channel", 23, _loop("clip grey given: clip_flat")),
    Row("clip forward, maps given (UMed's call), 3 channels", 55, _loop("clip colour given: clip_flat")),
    Row("clip backward, 1 channel", 13, _loop("clip backward grey: packed_bwd")),
    Row("clip backward, 3 channels", 37, _loop("clip backward colour: packed_bwd")),
    Row("LBP codes", 2, _loop("lbp: lbp_fwd")),
    Row("LBP codes, uniform", 2, _loop("lbp uniform: lbp_fwd")),
    Row("top-k step, rows of 784", 16 * 784 / 896, _row("topk 784: topk_row")),
    Row("top-k step, rows of 2,352", 16 * 2352 / 2560, _row("topk 2352: topk_row")),
    Row("top-k step, rows of 12,288", 16, _row("topk 12288: topk_row")),
    Row("top-k step, rows of 150,528", 16, _long("150528"), again=4),
    Row("top-k step, rows of 786,432", 16, _long("786432"), again=4),
    Row("stem forward, 1 to 64 channels, bf16", 2 + 2 / 64, _loop("cdc stem grey bf16: stem_fwd")),
    Row("stem forward, 3 to 64 channels, bf16", 2 + 6 / 64, _loop("cdc stem colour bf16: stem_fwd")),
    Row("stem's weight gradient, 1 to 64 channels, bf16", 2 + 2 / 64, _loop("cdc stem grey bf16: stem_weight")),
    Row("stem's weight gradient, 3 to 64 channels, bf16", 2 + 6 / 64, _loop("cdc stem colour bf16: stem_weight")),
    Row("flips and shifts, 5 of each image", 4 + 4 / 5, _loop("flip and shift: flip_shift_fwd")),
)


def instructions(row: Row, kernels: dict[str, Any]) -> float:
    """Warp instructions for one element."""
    total = 0.0
    for name, loops, alls, times in row.kernels:
        counts = kernels[name]["sm_90"]
        total += (loops * counts["loop"] + alls * counts["all"]) / (times * kernels[name]["elements"])
    return total


def share(row: Row, kernels: dict[str, Any]) -> tuple[float, float]:
    """Of a copy's bandwidth, at worst and at best."""
    needed, moved, issued = row.bytes / COPY, (row.bytes + row.again) / COPY, instructions(row, kernels) / ISSUE
    return needed / (moved + issued), needed / max(moved, issued)


def table() -> str:
    kernels = json.loads(BUDGETS.read_text())["kernels"]
    lines = ["| kernel | bytes an element | warp instructions per 1,000 elements | share of a copy |"]
    lines.append("|---|---|---|---|")
    for row in ROWS:
        count = 1000 * instructions(row, kernels)
        worst, best = share(row, kernels)
        lines.append(f"| {row.what} | {row.bytes:.1f} | {count:,.0f} | {worst:.0%} to {best:.0%}, predicted |")
    return "\n".join(lines)


def page(text: str) -> str:
    """``text`` with the table as it is now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
