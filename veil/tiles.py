"""Fixed tiles that may tell a network where a mask is: float [8, 8] of mean 0 and mean square 1, by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from medveil.cells import turns

SIDE = 8


def _tiles() -> dict[str, Tensor]:
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return {
        "checkerboard": turns(rows, 1) * turns(columns, 1),
        "rows": turns(rows, 1),
        "columns": turns(columns, 1),
        "diagonals": turns(rows + columns, 2),
        "rows of 2": turns(rows, 2),
        "columns of 2": turns(columns, 2),
        "cells of 2": turns(rows, 2) * turns(columns, 2),
        "cells of 4": turns(rows, 4) * turns(columns, 4),
    }


TILES: Mapping[str, Tensor] = _tiles()
"""All of them +1 and -1, so that each uses the whole bound."""
