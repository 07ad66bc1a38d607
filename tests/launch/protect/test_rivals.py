"""Every rival through a whole protect job: fitted, saved as 8-bit files, read back and held against its bound."""

import pytest

from medveil.errors import UserError
from medveil.launch.data import open_data
from medveil.launch.protect.job import ProtectJob, run_protect
from tests.baselines.rivals import EM, SEP, TAP
from tests.launch.releases import both_manifests

OPTIONS = {"em": EM, "tap": TAP, "sep": SEP, "lsp": {}, "ar": {}}


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("data", ["phantom:seg:11:16", "phantom:cls:11:16"])
def test_a_release_reads_back_within_its_bound(tmp_path, method, data):
    out = tmp_path / "release"
    run_protect(ProtectJob(method, data, out, OPTIONS[method], seed=1, threads=1, device="cpu", quiet=True))
    manifest = both_manifests(out)
    levels = {"phantom:seg:11:16": 4, "phantom:cls:11:16": 8}[data]
    assert manifest["budget"]["levels"] == (None if method in ("lsp", "ar") else levels)
    samples = manifest["samples"]
    assert all(sample["protected"] for sample in samples)
    if method not in ("lsp", "ar"):
        assert 0 < max(sample["max_change"] for sample in samples) <= levels
    assert len(open_data(str(out)).data) == len(samples) == 11


def test_em_on_the_contour_needs_masks(tmp_path):
    job = ProtectJob(
        "em", "phantom:cls:11:16", tmp_path / "out", {"region": "contour"}, seed=1, device="cpu", quiet=True
    )
    with pytest.raises(UserError, match="masks"):
        run_protect(job)
