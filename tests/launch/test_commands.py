"""The commands' faces: help, flags, and what a person meets before anything runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medveil.config import about_of
from medveil.launch.audit.config import Audit
from medveil.launch.cli import COMMANDS, main
from medveil.launch.data.patient_names import sign_of_patient
from medveil.launch.exploiters.config import ExploiterConfig
from medveil.launch.jobs.slurm import Slurm
from medveil.launch.protect.config import PartOptions
from medveil.launch.protect.methods import METHODS
from medveil.launch.sweeping.grid import Block, Sweep
from tests.launch.protecting import contents

SETTINGS = [*METHODS.values(), ExploiterConfig, Audit, PartOptions, Sweep, Block, Slurm]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """All that was printed, in one line each thing."""
    return " ".join(capsys.readouterr().out.split())


def masked(root: Path, count: int = 6) -> Path:
    """A folder of images that differ, with masks."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        coarse = generator.integers(0, 256, (6, 6), dtype=np.uint8)
        mask = np.zeros((48, 48), np.uint8)
        mask[12:30, 10:34] = 255
        Image.fromarray(coarse).resize((48, 48)).save(root / "images" / f"scan{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"scan{number}.png")
    return root


def test_every_setting_has_a_sentence_of_help() -> None:
    internal = {"release", "options", "quiet", "reading"}
    lacking = [
        f"{settings.__name__}.{name}"
        for settings in SETTINGS
        for name, item in settings.__dataclass_fields__.items()
        if name not in internal and not about_of(item).text and "ClassVar" not in str(item.type)
    ]
    assert lacking == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("protect --method umed --preset cpu", ["--epochs N length of the fit", "together (default: 200)"]),
        ("protect --method umed --preset paper", ["together (default: 500)", "--eps N/255", "(default: 4/255)"]),
        ("protect --preset=cpu --method=salm", ["SGD) (default: 2000)", "this machine:", "--start random|"]),
        ("protect phantom:seg", ["are those of umed's preset"]),
        ("audit phantom:cls --preset paper", ["instead of epochs (default: 20000)", "augmentation none|flip-shift"]),
        ("sweep", ["--seeds LIST", "(default: 0,1,2)", "on a cluster"]),
    ],
)
def test_help_shows_what_will_run(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    shown = told(capsys)
    assert [word for word in words if word not in shown] == []


def test_help_and_version_need_no_torch() -> None:
    asked = [["--version"], *([name, "--help"] for name in COMMANDS), ["protect", "--method", "em", "--help"]]
    script = f"""
import sys
from medveil.launch.cli import main
for argv in {asked!r}:
    try:
        main(argv)
    except SystemExit as end:
        assert end.code == 0, argv
    heavy = {{"torch", "torchvision", "timm", "segmentation_models_pytorch", "submitit"}} & set(sys.modules)
    assert not heavy, (argv, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "medveil " in done.stdout.splitlines()[0]
    assert "torch " in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("protect phantom:seg --share 101", "--share: must be between 0 and 100 percent, not 101"),
        ("protect phantom:seg --seed 99999999999999999999", "--seed: must be between 0 and 9223372036854775807"),
        ("protect phantom:seg --size 8", "--size: must be between 16 and 4096 pixels, not 8"),
        ("protect phantom:seg --clip soft", "--clip: 'soft' is none of hard, tanh"),
        ("protect phantom:seg --rounding maybe", "--rounding: 'maybe' is neither true nor false"),
        ("protect phantom:seg --data phantom:cls", "name the data once"),
        ("protect", "medveil protect FOLDER"),
        ("audit none --seeds 0,-1", "--seeds: must be at least 0, not -1"),
        ("audit none --exploiter ,", "--exploiter: is empty"),
        ("audit none --batch-size many", "--batch-size: 'many' is not a whole number"),
        ("audit none --nonsense 1", "--nonsense"),
        ("sweep --workers -1", "--workers: must be at least 0, not -1"),
        ("sweep --nodes 0", "--nodes: must be at least 1, not 0"),
        ("check", "FOLDER"),
        ("check nowhere", "nowhere does not exist"),
        ("check nowhere.npz", "nowhere.npz does not exist"),
        ("check phantom:nothing", "phantom:nothing"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(command: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    printed, said = capsys.readouterr()
    assert word in said
    assert said.count("\n") == 1
    assert not printed


def test_a_folder_alone_is_protected_beside_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = masked(tmp_path / "set")
    quick = ["--size", "32", "--epochs", "2", "--width", "4", "--depth", "2", "--threads", "1", "--device", "cpu"]
    # So short a fit leaves noise that may round to nothing, with some seeds: the bound is wide, and the seed told.
    quick += ["--seed", "1", "--eps", "60/255"]
    assert main(["protect", str(folder), *quick, "--dry-run"]) == 0
    assert "takes about" in told(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert main(["protect", str(folder), *quick]) == 0
    said = told(capsys)
    assert "images/ and masks/, 6 images; method umed" in said
    assert "preset cpu" in said
    assert {"images/scan0.png", "masks/scan5.png"} <= set(contents(tmp_path / "set-protected"))


@pytest.mark.parametrize("inside", [True, False])
def test_a_release_lies_beside_its_data(inside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = masked(tmp_path / "outer" / "set", 2)
    out = folder / "images" / "out" if inside else tmp_path / "outer"
    before = contents(tmp_path)
    assert main(["protect", str(folder), "--out", str(out)]) == 2
    assert "choose a place beside it" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_check_passes_a_good_folder_and_tells_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = masked(tmp_path / "set")
    for kind in ("images", "masks"):
        (folder / kind / "scan1.png").rename(folder / kind / "Meier_Anna_19650312.png")
        (folder / kind / "copy.png").write_bytes((folder / kind / "scan2.png").read_bytes())
    assert main(["check", str(folder), "--method", "random", "--size", "32"]) == 0
    said = told(capsys)
    assert "images/ and masks/, 7 images" in said
    assert "sizes: 48x48 (7) depth: 8 bits (7)" in said
    assert "names that may be a patient's: 1" in said
    assert "near-duplicates, by perceptual hash: 1" in said
    assert "nothing would be refused protecting it with random takes about" in said


def test_check_names_every_bad_file_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = masked(tmp_path / "set")
    images, masks = folder / "images", folder / "masks"
    (images / "scan0.png").write_bytes(b"no image")
    Image.fromarray(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 7).save(images / "scan1.png")
    (masks / "scan2.png").unlink()
    (images / "scan3.png").unlink()
    Image.new("L", (20, 20), 255).save(masks / "scan4.png")
    assert main(["check", str(folder)]) == 1
    said = told(capsys)
    assert "would be refused: 5" in said
    assert "16 or more bits (1)" in said
    for bad in ("images/scan0.png", "images/scan1.png", "images/scan2.png", "masks/scan3.png", "masks/scan4.png"):
        assert f"{folder / bad} " in said
    assert "scan5" not in said


def test_a_coloured_image_among_grey_ones_is_named_and_changes_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = masked(tmp_path / "set")
    grey = Image.open(folder / "images" / "scan3.png").convert("L")
    Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_90), grey)).save(folder / "images" / "scan3.png")
    assert main(["check", str(folder), "--method", "random"]) == 0
    assert f"coloured images among grey ones: 1 {folder}/images/scan3.png" in told(capsys)
    assert main(["protect", str(folder), "--method", "random", "--seed", "1"]) == 0
    assert "1 of 6 images is coloured among grey ones (scan3): each is released with its own channels" in told(capsys)
    modes = [Image.open(path).mode for path in sorted((tmp_path / "set-protected" / "images").iterdir())]
    assert modes == ["L", "L", "L", "RGB", "L", "L"]


def test_medical_files_alone_are_protected_by_their_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nib = pytest.importorskip("nibabel")
    rng, region = np.random.default_rng(0), np.zeros((32, 32, 2), np.uint8)
    region[8:24, 8:24] = 1
    for case in range(2):
        scan = rng.normal(100, 20, region.shape).astype(np.int16) + 60 * region
        for kind, values in (("images", scan), ("masks", region)):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "set" / kind / f"case{case}.nii.gz")
    quick = ["--epochs", "1", "--width", "4", "--depth", "2", "--seed", "1", "--eps", "60/255"]
    assert main(["protect", str(tmp_path / "set"), *quick]) == 0
    assert "set: images/ and masks/; method umed" in told(capsys)
    assert {"images/case0.nii.gz", "masks/case1.nii.gz"} <= set(contents(tmp_path / "set-protected"))


def test_check_tells_what_opening_alone_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / "empty")]) == 1
    assert "would be refused: 1" in told(capsys)


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("Meier_Anna", True),
        ("MEIER^ANNA", True),
        ("us-12.03.1965", True),
        ("20190230_1", True),
        ("8812345", True),
        ("benign (25)", False),
        ("Left_Lateral_View", False),
        ("CHNCXR_0001_0", False),
        ("ISIC_0012345", False),
        ("cju0qkwl35piu0993l0dewei2", False),
    ],
)
def test_names_of_patients_are_told_from_counters(stem: str, found: bool) -> None:
    assert (sign_of_patient(stem) is not None) == found
