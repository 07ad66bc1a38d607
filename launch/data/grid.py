"""The size at which images are fitted, whatever size their files have."""

from collections.abc import Collection

DEFAULT_SIZE = 224
SHORT_SIDE = 256


def working_grid(sizes: Collection[tuple[int, int] | None]) -> tuple[int, int]:
    """Height and width that images of ``sizes`` (height, width; None: unreadable) are fitted at.

    Images of one size: their own aspect, with a shorter side of at most 256. Of several sizes: 224 x 224.
    """
    known = {size for size in sizes if size is not None and min(size) > 0}
    if len(known) != 1:
        return DEFAULT_SIZE, DEFAULT_SIZE
    ((height, width),) = known
    scale = min(1.0, SHORT_SIDE / min(height, width))
    return round(height * scale), round(width * scale)
