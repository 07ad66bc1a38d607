"""What a sweep says of the table in which the paper shows its cells."""

from dataclasses import dataclass
from typing import Literal

from medveil.config import Settings, setting

Factor = Literal["data", "protector", "exploiter", "attack"]


@dataclass(frozen=True)
class Layout(Settings):
    """What a table has down its side and across."""

    rows: list[Factor] = setting(["protector"], "what a line of the table is")
    columns: list[Factor] = setting(["data"], "what a group of columns is")
    values: list[str] = setting(["accuracy"], "the metrics of each group, or psnr and ssim")
    only: dict[Factor, str] = setting({}, "parts that must be so: {exploiter: mean of 4}")
    average: bool = setting(False, "a last group: the mean over the others")
