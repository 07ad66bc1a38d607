"""The protectors that commands and sweeps know by name: their settings, and they themselves when they are used."""

import importlib
from collections.abc import Mapping

from medveil.baselines.config import (
    ARConfig,
    ErrorMinimisingConfig,
    LSPConfig,
    PatternConfig,
    RandomSignsConfig,
    SEPConfig,
    TAPConfig,
    UnprotectedConfig,
)
from medveil.errors import UserError
from medveil.launch.data.layout import layout_of
from medveil.launch.protect.own import is_file, protector_in
from medveil.method import MethodSettings
from medveil.protector import Protector
from medveil.salm.config import SALMConfig
from medveil.task import Task
from medveil.umed.config import UMedConfig
from medveil.veil.config import VeilConfig

_PLACES: Mapping[type[MethodSettings], str] = {
    VeilConfig: "medveil.veil.Veil",
    UMedConfig: "medveil.umed.UMed",
    SALMConfig: "medveil.salm.SALM",
    ErrorMinimisingConfig: "medveil.baselines.ErrorMinimising",
    TAPConfig: "medveil.baselines.TAP",
    SEPConfig: "medveil.baselines.SEP",
    LSPConfig: "medveil.baselines.LSP",
    ARConfig: "medveil.baselines.AR",
    PatternConfig: "medveil.baselines.Pattern",
    RandomSignsConfig: "medveil.baselines.RandomSigns",
    UnprotectedConfig: "medveil.baselines.Unprotected",
}

METHODS: Mapping[str, type[MethodSettings]] = {config.name: config for config in _PLACES}
"""The settings of every method, by its name."""


METHOD_OF_TASK: Mapping[Task, str] = {"segmentation": "umed", "classification": "salm", "multilabel": "salm"}
"""The method of whoever names none."""


def method_for(data: str | None) -> str | None:
    """The method of whoever names none, by the layout of ``data``; None where nothing is recognised."""
    layout = None if data is None else layout_of(data)
    return None if layout is None else METHOD_OF_TASK[layout.task]


def settings_of(method: str) -> type[MethodSettings]:
    """The settings of ``method``, a name or a file of Python. Raises UserError for what is neither."""
    if is_file(method):
        return protector_in(method).Config
    if method not in METHODS:
        raise UserError(f"no method is called {method!r}: choose from {', '.join(METHODS)}, or name a file FILE.py")
    return METHODS[method]


def protector_of(method: str) -> type[Protector]:
    """The class of the protector ``method``, imported only now."""
    if is_file(method):
        return protector_in(method)
    module, _, name = _PLACES[settings_of(method)].rpartition(".")
    found: type[Protector] = getattr(importlib.import_module(module), name)
    return found
