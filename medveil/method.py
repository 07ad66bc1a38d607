"""What is known of a protector before it runs, without torch: its settings, what it protects, and how it is sized."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from medveil.config import Settings
from medveil.task import Task

ANY_TASK: frozenset[Task] = frozenset({"segmentation", "classification", "multilabel"})

Presets = Mapping[str, Mapping[str, Any]]
"""What "paper", "gpu" and "cpu" change of the defaults; "demo" is a demonstration, too short to judge a method by."""

Recipes = Mapping[Task, Mapping[str, Mapping[str, Any]]]
"""For each task, by name, settings that a calibration tries beside the defaults."""


@dataclass(frozen=True)
class MethodSettings(Settings):
    """Base of a protector's configuration. ``name``: as commands and sweeps know the protector."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[Task]] = ANY_TASK
    presets: ClassVar[Presets] = {"paper": {}, "gpu": {}, "cpu": {}, "demo": {}}
    recipes: ClassVar[Recipes] = {}

    @property
    def keeps_noise(self) -> bool:
        """Whether a fit keeps noise per sample between visits: processes then work on the samples that are theirs."""
        return False
