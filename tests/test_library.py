"""The operators and the methods as a library: what they import, in a Python that lacks all that the extras bring."""

import subprocess
import sys

from medveil.launch.extras import EXTRAS
from tests.conftest import ROOT

LIBRARY = """
import sys

import torch

for package in {extras}:
    sys.modules[package] = None
known = set(sys.modules)
import medveil.kernels

print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - known}} - set(sys.stdlib_module_names)))

from medveil.dataset import ArrayDataset
from medveil.quantise import quantise
from medveil.salm import SALM
from medveil.umed import UMed

images, ids = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8), list("abcd")
masks, classes = (images > 99).to(torch.uint8), torch.tensor([0, 1, 0, 1])
for protector, data in (
    (SALM(steps=1, width=2, pgd_steps=1), ArrayDataset(images, classes, ids, "classification", 2)),
    (UMed(epochs=1, width=2, depth=2), ArrayDataset(images, masks, ids, "segmentation", 1)),
):
    protected = protector.fit(data).perturb(*data.read(range(4)))
    print(bool((quantise(protected, images, protector.budget().levels) != images).any()))
"""


def test_without_the_extras_the_operators_need_torch_and_the_methods_work() -> None:
    code = LIBRARY.format(extras=list(EXTRAS))
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    imported, *protected = ended.stdout.splitlines()
    assert set(imported.split()) - {"medveil"} <= {"torch", "triton", "numpy"}
    assert protected == ["True", "True"]
