"""Fixed tiles that may tell a network where a mask is: float [8, 8] of mean 0 and mean square 1, by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

SIDE = 8


def _turns(places: Tensor, cells: int) -> Tensor:
    """+1 and -1 in turn along ``places``, ``cells`` of each."""
    return 1.0 - 2.0 * ((places // cells) % 2)


def _tiles() -> dict[str, Tensor]:
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return {
        "checkerboard": _turns(rows, 1) * _turns(columns, 1),
        "rows": _turns(rows, 1),
        "columns": _turns(columns, 1),
        "diagonals": _turns(rows + columns, 2),
        "rows of 2": _turns(rows, 2),
        "columns of 2": _turns(columns, 2),
        "cells of 2": _turns(rows, 2) * _turns(columns, 2),
        "cells of 4": _turns(rows, 4) * _turns(columns, 4),
    }


TILES: Mapping[str, Tensor] = _tiles()
"""All of them +1 and -1, so that each uses the whole bound."""
