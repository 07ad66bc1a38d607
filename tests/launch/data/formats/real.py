"""Real medical files that come with packages; tests that need an absent one skip and say so."""

from importlib.util import find_spec
from pathlib import Path

import pytest


def package_file(package: str, name: str) -> Path:
    """The file ``name`` within an installed package; skips the test without it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        pytest.skip(f"{package} brings no {name}")
    return path


def dicom_file(name: str) -> Path:
    """Of pydicom's wheel, else of pydicom-data."""
    pytest.importorskip("pydicom")
    path = package_file("pydicom", "__init__.py").parent / "data" / "test_files" / name
    return path if path.is_file() else package_file("data_store", f"data/{name}")


def nibabel_file(name: str) -> Path:
    return package_file("nibabel", f"tests/data/{name}")
