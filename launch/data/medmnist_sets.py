"""The sets of MedMNIST: what its package says of them, and fetching their files."""

import http.client
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

from medveil.errors import UserError


def _info() -> dict[str, dict[str, Any]]:
    """MedMNIST's registry. Imported late: the package takes a second and makes a folder in the home directory."""
    from medmnist.info import INFO

    registry: dict[str, dict[str, Any]] = INFO
    return registry


def registered(path: Path) -> dict[str, Any]:
    """What MedMNIST says of a file of this name, at any of its sizes; empty for one that is not of its sets."""
    return _info().get(re.sub(r"_\d+$", "", path.stem), {})


def fetch(spec: str, size: int | None = None) -> Path:
    """The npz that ``medmnist:NAME[:SIZE]`` (or NAME and ``size``) names, in the medmnist package's folder.

    It is downloaded if it is not there.

    Raises :class:`UserError` for unknown names and sizes, and when there is no network.
    """
    from medmnist.info import DEFAULT_ROOT
    from torchvision.datasets.utils import check_integrity, download_url

    name, _, side = spec.partition(":")[2].partition(":")
    known = [key for key in _info() if not key.endswith("3d")]
    if name not in known:
        raise UserError(f"{spec}: no MedMNIST set is called {name!r}: choose from {', '.join(known)}")
    side = side or str(size or "")
    if side not in ("", "28", "64", "128", "224"):
        raise UserError(f"{spec}: there is no size {side}: choose from 28, 64, 128, 224")
    if DEFAULT_ROOT is None:
        raise UserError(
            f"{spec}: the medmnist package cannot make its folder ~/.medmnist: give the path of the npz instead"
        )
    flag = "" if side in ("", "28") else f"_{side}"
    info, path = _info()[name], Path(DEFAULT_ROOT) / f"{name}{flag}.npz"
    if check_integrity(path, info[f"MD5{flag}"]):
        return path
    waiting = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as partial:
            download_url(info[f"url{flag}"], partial, path.name, info[f"MD5{flag}"])
            (Path(partial) / path.name).replace(path)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        url = info[f"url{flag}"]
        raise UserError(f"{spec} could not be downloaded ({error}): fetch {url} elsewhere and give its path") from None
    finally:
        socket.setdefaulttimeout(waiting)
    return path
