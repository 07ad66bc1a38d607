"""The protectors to compare with, behind the same protocol as UMed and SALM."""

from baselines.ar import AR
from baselines.error_minimising import ErrorMinimising
from baselines.lsp import LSP
from baselines.random_signs import RandomSigns
from baselines.sep import SEP
from baselines.tap import TAP
from baselines.unprotected import Unprotected

__all__ = ["AR", "LSP", "SEP", "TAP", "ErrorMinimising", "RandomSigns", "Unprotected"]
