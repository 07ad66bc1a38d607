"""Packages whose public names are imported when they are used: their other modules can be read without torch."""

import importlib
from collections.abc import Callable
from typing import Any


def lazily(package: str, **modules: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``package``: each name of ``modules`` comes from that module of it."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return find
