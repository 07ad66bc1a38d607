"""The wheel holds one name, and works beside other packages that are called as our folders are."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import ROOT

USE = """
import launch, kernels, medveil, sys
from medveil.kernels import cdc_conv2d
from medveil.launch.cli import main

print(launch.whose, kernels.whose, medveil.__file__)
sys.exit(main("protect --method random --data phantom:seg:8:32 --out release --device cpu".split()))
"""


def run(*words: str, folder: Path) -> str:
    """Python's output when it is called with ``words``; nothing of the checkout is on its path."""
    told = {"cwd": folder, "env": {"PYTHONPATH": str(folder / "installed"), "OMP_NUM_THREADS": "1"}}
    ended = subprocess.run([sys.executable, *words], **told, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_wheel_works_beside_other_packages_called_launch_and_kernels(tmp_path: Path) -> None:
    # setuptools leaves its work in the folder that it builds: let that be a copy.
    links = [link.name for link in (ROOT / "medveil").iterdir() if link.is_symlink()]
    for name in ["medveil", *links]:
        shutil.copytree(ROOT / name, tmp_path / "source" / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    pip = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(*pip, "wheel", "./source", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", folder=tmp_path)
    (wheel,) = (tmp_path / "wheels").iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {top for name in names if not (top := name.partition("/")[0]).endswith(".dist-info")} == {"medveil"}
    assert {f"medveil/{name}" for name in ("py.typed", "launch/sweeps/demo.yaml", "launch/report/page.html")} <= names

    # As a wheel of Python alone is installed; pip would compile every file besides.
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    for name in ("launch", "kernels"):
        (tmp_path / "installed" / name).mkdir()
        (tmp_path / "installed" / name / "__init__.py").write_text("whose = 'theirs'\n")
    said = run("-c", USE, folder=tmp_path)
    assert said.startswith(f"theirs theirs {tmp_path / 'installed' / 'medveil' / '__init__.py'}\n")
    assert len(list((tmp_path / "release" / "images").iterdir())) == 8
