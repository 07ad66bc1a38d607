"""An authorised user's model sees released images nearly as it sees the originals, and equal ones alike."""

import re
from pathlib import Path

import numpy as np
import pytest

from medveil.errors import UserError
from medveil.launch.audit.authorised import METRIC, AuthorisedJob, run_authorised
from medveil.launch.audit.train import Place
from medveil.launch.cli import main
from medveil.launch.protect.job import ProtectJob, run_protect
from tests.launch.test_commands import masked

IMAGES = "phantom:cls:24:16"


def job(folder: Path, method: str, **changes: object) -> AuthorisedJob:
    release = folder / method
    options = {"eps": "60/255"} if method == "random" else {}
    run_protect(ProtectJob(method, IMAGES, release, options, seed=0, threads=1, device="cpu", quiet=True))
    values = {
        "release": release,
        "original": IMAGES,
        "trained_on": "phantom:seg:24:16",
        "preset": "cpu",
        "options": {"model": "unet", "width": 4, "epochs": 20, "batch_size": 4, "learning_rate": 5e-3},
        **changes,
    }
    place = Place(folder / "runs", device="cpu", threads=1, quiet=True)
    return AuthorisedJob(place, **values)  # type: ignore[arg-type]


def test_the_share_of_pixels_decided_differently(tmp_path: Path) -> None:
    none, random = (run_authorised(job(tmp_path, method)) for method in ("none", "random"))
    assert none.last == {METRIC: 0.0}
    assert random.inside == none.inside  # one model, trained on the other set
    assert random.inside["dsc"] > 0.3
    with np.load(random.pictures, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays}
    assert [kept[name].shape for name in ("original", "on_original")] == [(3, 16, 16, 1), (3, 16, 16)]
    assert (kept["original"] != kept["protected"]).any()
    differing = (kept["on_original"] != kept["on_protected"]).mean()
    assert differing > 0
    assert abs(random.last[METRIC] - differing) < 0.3
    assert Path(random.pictures).stat().st_mode & 0o077 == 0
    assert run_authorised(job(tmp_path, "random")) == random


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a set with masks"):
        run_authorised(job(tmp_path, "none", trained_on=IMAGES))
    assert main(["audit", str(tmp_path / "none"), "--authorised", "phantom:seg:24:16"]) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--attacks blur", "--attacks tells of exploiters"),
        ("--part clean", "--part tells of exploiters"),
        ("--normalise min-max,window", "--normalise tells of exploiters"),
        ("--dry-run", "--dry-run tells of exploiters"),
        ("--exploiter unet,unetplusplus", "one of unet, unetplusplus"),
    ],
)
def test_what_is_said_of_exploiters_is_refused(
    flags: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(tmp_path, "none")
    audit = ["audit", str(tmp_path / "none"), "--original", IMAGES, "--authorised", "phantom:seg:24:16"]
    assert main([*audit, *flags.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_private_run_elsewhere_tells_what_was_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, release = masked(tmp_path / "data"), tmp_path / "release"
    run_protect(ProtectJob("none", str(data), release, holdout=0.4, seed=0, threads=1, device="cpu", quiet=True))
    (tmp_path / ".release.run").rename(tmp_path / "private")
    quick = ["--width", "2", "--epochs", "1", "--preset", "cpu", "--device", "cpu", "--run", str(tmp_path / "private")]
    assert main(["audit", str(release), "--original", str(data), "--authorised", str(data), *quick]) == 0
    distance = re.search(r"hd95 ([\d.]+)\)", capsys.readouterr().out)
    assert distance is not None
    assert float(distance[1]) < 100  # pixels, not percent
