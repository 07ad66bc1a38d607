"""Versions that every result carries."""

import platform
from functools import cache
from importlib import metadata

_PACKAGES = ("medveil", "torch", "triton", "numpy", "pillow", "scikit-image", "segmentation-models-pytorch", "medmnist")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result; those that are absent are left out."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
