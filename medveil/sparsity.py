"""The share k of an image's elements that sparse noise may change: SALM's, Veil's on classes, and that of controls."""

from medveil.errors import UserError


def check_selects(k: float, count: int, unit: str = "element", literal: bool = False) -> None:
    """Raise UserError where ``k`` percent of ``count`` elements (or whatever ``unit`` is) of an image are none.

    ``literal``: k is the percentile from which on elements are selected, so that 100 - k percent are.
    """
    from medveil.kernels.topk import topk_count  # here, as help is shown without torch

    if not topk_count((100 - k if literal else k) / 100, count):
        least = 100 / count
        mend = f"at most {100 - least:.4g}" if literal else f"at least {least:.4g}"
        raise UserError(f"k = {k:g} selects none of the {count} {unit}s of an image: give {mend}")
