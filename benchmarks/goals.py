"""What the operators and whole steps are meant to reach, and how a run of the benchmarks measures up."""

import re
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """``ours`` is to be at least ``factor`` times as fast as the fastest of ``rivals``, in every group of ``pattern``.

    A factor below 1 is a fraction of a copy's speed, or the time that a single convolution may be exceeded by.
    """

    what: str
    device: str
    pattern: str
    rivals: tuple[str, ...]
    factor: float
    ours: str = "medveil"


def _operator(
    what: str, pattern: str, eager: tuple[str, ...], copy: float, times: float, compiled: float
) -> list[Goal]:
    return [
        Goal(f"{what}: share of a copy's bandwidth", "cuda", pattern, ("copy",), copy),
        Goal(f"{what}: over the best eager", "cuda", pattern, eager, times),
        Goal(f"{what}: over torch.compile", "cuda", pattern, ("compile",), compiled),
    ]


_TOPK = ("kthvalue", "topk")
_ONE = ("one convolution",)
GOALS = [
    *_operator("lbp_adaptive_clip forward", "clip forward", ("eager",), 0.85, 10, 1.5),
    *_operator("lbp_adaptive_clip backward", "clip backward", ("eager",), 0.85, 10, 1.5),
    *_operator("topk_masked_step, rows of 784 and 2352", r"topk step \d+x(784|2352) ", _TOPK, 0.8, 10, 5),
    *_operator("topk_masked_step, rows of 150,528", r"topk step \d+x150528 ", _TOPK, 0.6, 10, 5),
    Goal("cdc_conv2d forward + backward: one folded convolution", "cuda", r"cdc both \d+x\d\d+x", _ONE, 1 / 1.05),
    Goal("cdc_conv2d forward + backward, stems: one folded convolution", "cuda", r"cdc both \d+x\dx", _ONE, 1.5),
    Goal("cdc_conv2d forward + backward: over three convolutions", "cuda", "cdc both", ("naive",), 1.8),
    Goal("cdc_conv2d forward + backward: over torch.compile", "cuda", "cdc both", ("compile",), 1.2),
    Goal("SALM crafting step: over the plain loop, both in bf16", "cuda", "salm step", ("plain bf16",), 3, "graph"),
    Goal("UMed generator epoch: over the plain loop, both in bf16", "cuda", "umed", ("plain bf16",), 2, "medveil bf16"),
    Goal("local_binary_pattern: over scikit-image", "cpu", "lbp", ("scikit-image",), 20),
    Goal("cdc_conv2d forward: one folded convolution", "cpu", "cdc forward", _ONE, 1 / 1.15),
    Goal("cdc_conv2d forward + backward: one folded convolution", "cpu", "cdc both", _ONE, 1 / 1.1),
    Goal("topk_masked_step: over the best eager", "cpu", "topk step", _TOPK, 2),
    Goal("SALM crafting step in fp32: over the plain loop", "cpu", "salm step", ("plain",), 1.2),
    Goal("SALM crafting step in bf16: over the plain loop in fp32", "cpu", "salm step", ("plain",), 2, "medveil bf16"),
]


def milliseconds(entry: Entry) -> float:
    """The median: on a GPU of the device alone, else what the timer of the run measured."""
    found: float = entry["extra_info"].get("gpu_median_ms", entry["stats"]["median"] * 1e3)
    return found


def ratios(goal: Goal, groups: dict[str, list[Entry]]) -> list[float]:
    """How many times as fast as its fastest rival ours is, one for each group that has both."""
    found = []
    for group, entries in groups.items():
        if not re.match(goal.pattern, group) or not group.endswith(f" {goal.device}"):
            continue
        times = {entry["extra_info"]["provider"]: milliseconds(entry) for entry in entries}
        rivals = [times[rival] for rival in goal.rivals if rival in times]
        if rivals and goal.ours in times:
            found.append(min(rivals) / times[goal.ours])
    return found


def table(groups: dict[str, list[Entry]]) -> list[str]:
    lines = ["| goal | device | at least | measured, worst and best | shapes | met |", "|---|---|---|---|---|---|"]
    for goal in GOALS:
        found = ratios(goal, groups)
        row = f"| {goal.what} | {goal.device} | {goal.factor:.2f}x |"
        if found:
            met = sum(ratio >= goal.factor for ratio in found)
            verdict = "yes" if met == len(found) else f"no ({met} of {len(found)})"
            lines.append(f"{row} {min(found):.2f}x to {max(found):.2f}x | {len(found)} | {verdict} |")
        else:
            lines.append(f"{row} not measured | | |")
    return [*lines, ""]
