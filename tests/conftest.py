"""What tests of several folders share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ROOT / "tests" / "slurm" in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def raw_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of the bytes 0 to 31, for ``--key-from``: a passphrase takes half a second each time it is used."""
    path = tmp_path_factory.mktemp("secret") / "raw"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(32)))
    return str(path)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image sets: MEDVEIL_TEST_DATA, or shared/data beside the checkout; skips without it."""
    named = os.environ.get("MEDVEIL_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not a folder (set MEDVEIL_TEST_DATA)")
    return folder
