"""A figure as a PNG file: written under a name that any file system takes, with a mark by which it is known as ours."""

import hashlib
import io
import itertools
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from medveil.launch.running.files import write_private

MARK = "medveil report"
"""In the metadata of every figure: what tells it from the pictures of others."""

_LONGEST = 150


@dataclass(frozen=True)
class Picture:
    """A figure on disk. ``kind``: bars, curves, heatmap, frontier, sheet, authorised or comparison. ``alt``: what it
    shows, in words.
    """

    path: Path
    data: str
    kind: str
    caption: str
    alt: str


def save(figure: Figure, folder: Path, name: str, data: str, kind: str, caption: str, alt: str) -> Picture:
    """Write ``figure`` into ``folder`` as NAME.png, or NAME-2.png and so on where there is one of this name."""
    path = _free(folder, file_name(name))
    content = io.BytesIO()
    figure.set_dpi(200)
    with warnings.catch_warnings():
        # A name may hold what the font has not; the tables beside the figure have it.
        warnings.filterwarnings("ignore", message="Glyph")
        # Not savefig, which lays a figure out, and draws it, twice.
        FigureCanvasAgg(figure).print_png(content, metadata={"Software": MARK})
    write_private(path, content.getvalue())
    return Picture(path, data, kind, caption, alt)


def file_name(text: str) -> str:
    """``text`` with everything but letters, digits, dots, signs and equals turned into single dashes; a long one cut,
    with a hash of the whole.
    """
    name = re.sub(r"[^A-Za-z0-9.=+]+", "-", text).strip("-.")
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _free(folder: Path, name: str) -> Path:
    """Different sets may have the same name for a file: two of other letters than Latin ones have none at all."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for one in names if not (path := folder / f"{one}.png").exists())


def forget(folder: Path) -> None:
    """Remove the figures of an earlier report from ``folder``; other files stay."""
    for path in sorted(folder.glob("*.png")):
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                ours = picture.info.get("Software") == MARK
        except (OSError, SyntaxError, ValueError):
            continue  # no PNG, so none of ours
        if ours:
            path.unlink()


def of_kind(pictures: Iterable[Picture], data: str, kind: str) -> list[Picture]:
    return [p for p in pictures if p.data == data and p.kind == kind]
