"""The protectors to compare with, behind the same protocol as UMed and SALM."""

from baselines.error_minimising import ErrorMinimising
from baselines.random_signs import RandomSigns
from baselines.unprotected import Unprotected

__all__ = ["ErrorMinimising", "RandomSigns", "Unprotected"]
