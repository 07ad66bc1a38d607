"""Progress of a long fit: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

LINE_SECONDS = 10.0
BAR_SECONDS = 0.5

T = TypeVar("T")


def duration(seconds: float) -> str:
    """75 -> "1 min 15 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """3675 -> "1:01:15"; days are hours too."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Progress:
    """Shows how far ``label`` is. ``due`` tells when to show again, so that metrics are read only then.

    ``unit``: what is counted.
    """

    def __init__(self, label: str, quiet: bool = False, unit: str = "step") -> None:
        self.label = label
        self.unit = unit
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._begun = time.monotonic()
        self._first: int | None = None
        self._shown = self._begun
        self._terminal = not quiet and sys.stderr.isatty()

    def due(self, now: float) -> bool:
        return now - self._shown >= (BAR_SECONDS if self._terminal else LINE_SECONDS)

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> str:
        """Show ``done`` of ``total``; returns the plain line."""
        now = time.monotonic()
        if self._first is None:
            # Steps before a restart took their time elsewhere: the rate counts from what this process saw first.
            self._first = done - 1
        elapsed = now - self._begun
        left = elapsed / max(done - self._first, 1) * (total - done)
        values = "".join(f", {name} {value:.4g}" for name, value in metrics.items())
        line = f"{self.label}: {self.unit} {done} of {total}{values}, about {duration(left)} left"
        self._shown = now
        if self._terminal:
            self._draw(done, total, f"{values.removeprefix(', ')}, {duration(left)} left")
        elif not self.quiet:
            print(line, file=sys.stderr, flush=True)
        return line

    def begin(self, done: int) -> None:
        """Count time and steps from here (after a restart: from ``done``)."""
        self._begun = time.monotonic()
        self._first = done

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, text: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=total, text=text)
        self._bar.update(self._task, completed=done, total=total, text=text)


def shown(
    items: Iterable[T], total: int, label: str, quiet: bool, count: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """``items`` of ``count(item)`` images each, ``total`` together; says from time to time how far they are."""
    progress = Progress(label, quiet, "image")
    progress.begin(0)
    try:
        done = 0
        for item in items:
            yield item
            done += count(item)
            if done and progress.due(time.monotonic()):
                progress.show(min(done, total), total, {})
    finally:
        progress.close()
