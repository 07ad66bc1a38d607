"""Data in: what the user names, opened as a data set."""

from typing import TYPE_CHECKING

from medveil.lazy import lazily

if TYPE_CHECKING:
    from medveil.launch.data.opening import Opener, open_data
    from medveil.launch.data.origins import Origin
    from medveil.launch.data.source import Source, split_holdout
else:
    __getattr__ = lazily(
        __name__,
        Opener="opening",
        open_data="opening",
        Origin="origins",
        Source="source",
        split_holdout="source",
    )

__all__ = ["Opener", "Origin", "Source", "open_data", "split_holdout"]
