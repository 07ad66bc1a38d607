"""Veil: noise that a fresh network meets before it meets the image."""

from typing import TYPE_CHECKING

from medveil.lazy import lazily
from medveil.veil.config import VeilConfig

if TYPE_CHECKING:
    from medveil.veil.protector import Veil
else:
    __getattr__ = lazily(__name__, Veil="protector")

__all__ = ["Veil", "VeilConfig"]
