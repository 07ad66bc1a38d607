"""The protectors to compare with, behind the same protocol as UMed and SALM."""

from typing import TYPE_CHECKING

from medveil.lazy import lazily

if TYPE_CHECKING:
    from medveil.baselines.ar import AR
    from medveil.baselines.error_minimising import ErrorMinimising
    from medveil.baselines.lsp import LSP
    from medveil.baselines.pattern import Pattern, RandomSigns
    from medveil.baselines.sep import SEP
    from medveil.baselines.tap import TAP
    from medveil.baselines.unprotected import Unprotected
else:
    __getattr__ = lazily(
        __name__,
        AR="ar",
        ErrorMinimising="error_minimising",
        LSP="lsp",
        Pattern="pattern",
        RandomSigns="pattern",
        SEP="sep",
        TAP="tap",
        Unprotected="unprotected",
    )

__all__ = ["AR", "LSP", "SEP", "TAP", "ErrorMinimising", "Pattern", "RandomSigns", "Unprotected"]
