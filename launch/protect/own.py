"""A protector of the user's own, from one file of Python that ``--method FILE.py`` names."""

import hashlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from medveil.errors import UserError
from medveil.launch.reading import read_bytes
from medveil.method import MethodSettings
from medveil.protector import Protector

_SUFFIX = ".py"
_BYTES = 1 << 20


def is_file(method: str) -> bool:
    """Whether ``method`` names a file rather than a method of the house."""
    return method.endswith(_SUFFIX)


def digest_of(method: str) -> str:
    """SHA-256 of the file: when it changes, a run is another run. Raises UserError where it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(Path(method), _BYTES)).hexdigest()
    except OSError as error:
        raise UserError(f"--method {method}: {error.strerror}") from error


def protector_in(method: str) -> type[Protector]:
    """The protector that the file ``method`` defines; the file is run as code.

    Raises UserError unless it runs and defines exactly one class with the methods of
    :class:`medveil.protector.Protector` and a ``Config`` derived from :class:`medveil.method.MethodSettings`.
    """
    return _found(str(Path(method).absolute()), digest_of(method))


@lru_cache
def _found(path: str, digest: str) -> type[Protector]:
    module = _run(Path(path), f"medveil_own_{digest[:16]}")
    wanted = ("fit", "perturb", "budget", "support", "state_dict", "load_state_dict")
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__ == module.__name__ and hasattr(one, "perturb")
    ]
    if len(found) != 1:
        raise UserError(f"--method {path} must define one class with a perturb, not {len(found)}")
    lacking = [name for name in wanted if not callable(getattr(found[0], name, None))]
    if lacking:
        raise UserError(f"--method {path}: {found[0].__name__} lacks {', '.join(lacking)}")
    config = getattr(found[0], "Config", None)
    if not (isinstance(config, type) and issubclass(config, MethodSettings) and hasattr(config, "name")):
        raise UserError(f"--method {path}: {found[0].__name__}.Config must derive from MethodSettings and have a name")
    return found[0]


def _run(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks types up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"--method {path} does not run: {type(error).__name__}: {error}") from error
    return module
