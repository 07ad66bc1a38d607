"""Data in: what the user names, opened as a data set."""

from medveil.launch.data.opening import Opener, open_data
from medveil.launch.data.source import Origin, Source, split_holdout

__all__ = ["Opener", "Origin", "Source", "open_data", "split_holdout"]
