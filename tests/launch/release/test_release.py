import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medveil.baselines import RandomSigns
from medveil.dataset import ArrayDataset
from medveil.errors import UserError
from medveil.launch.data import Source, open_data
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.folder import FolderFiles
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.npz import NpzFiles
from medveil.launch.release.verify import ReleasePlan, Summary
from medveil.launch.release.write import write_release
from medveil.launch.running.processes import Processes
from medveil.launch.running.runs import own
from medveil.launch.running.runtime import running
from medveil.protector import Budget
from medveil.quantise import to_unit
from tests.launch.releases import both_manifests


class Noise(RandomSigns):
    """Random signs that promise what the test says and do what the test says."""

    def __init__(self, change: Callable[[Tensor, Sequence[str]], Tensor] | None = None, promise: Budget | None = None):
        super().__init__(seed=1)
        self.change, self.promise = change, promise

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        if self.change is None:
            return super().perturb(images, targets, ids)
        return to_unit(images) + self.change(to_unit(images), ids) / 255

    def budget(self) -> Budget:
        return self.promise or super().budget()


@pytest.fixture(scope="module")
def segmentation() -> Source:
    """Six images of 24x16; the mask of the fourth is empty."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(20, 230, (6, 3, 24, 16), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(6, 1, 24, 16, dtype=torch.uint8)
    masks[:, :, 6:14, 4:11] = 1
    masks[3] = 0
    data = ArrayDataset(images, masks, [f"case/{i}" for i in range(6)], "segmentation", 1)
    return Source("folder", "set", "segmentation-folder", data, None, None, [], "f")


@pytest.fixture
def npz(tmp_path: Path) -> Source:
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{what}": rng.integers(0, high, shape, dtype=np.uint8)
        for split, count in (("val", 3), ("train", 70), ("test", 4))
        for what, high, shape in (("images", 255, (count, 8, 8)), ("labels", 2, (count, 1)))
    }
    np.savez_compressed(tmp_path / "some.npz", **arrays)
    return open_data(str(tmp_path / "some.npz"))


def release(source: Source, protector: Any, out: Path, empty: Any = "drop", indices: Any = None) -> Summary:
    protector.fit(source.data)
    indices = range(len(source.data)) if indices is None else indices
    with (
        own(out.with_name(f".{out.name}.run"), {}, "f") as run,
        running(Processes(torch.device("cpu")), run, "fp32", "test", quiet=True) as runtime,
    ):
        summary = write_release(ReleasePlan(source, indices, protector, empty, ["held"]), out, run, runtime)
    assert summary is not None
    return summary


def manifest_of(out: Path) -> dict[str, Any]:
    return both_manifests(out)


def left_over(out: Path) -> list[str]:
    """What lies about besides the release and the run's own files."""
    return [p.name for p in out.parent.glob(f"{out.name}*")] + [p.name for p in out.parent.glob(".*.run/*/release-*")]


def test_a_segmentation_release(segmentation: Source, tmp_path: Path) -> None:
    summary = release(segmentation, Noise(), tmp_path / "out")
    assert (summary.samples, summary.protected, summary.dropped) == (5, 5, 1)
    manifest = manifest_of(tmp_path / "out")
    assert [sample["id"] for sample in manifest["samples"]] == [f"case/{i}" for i in (0, 1, 2, 4, 5)]
    assert manifest["dropped"] == [{"id": "case/3", "reason": "empty mask"}]
    assert manifest["held_out"] == ["held"]
    assert manifest["budget"] == {"levels": 4, "changed": None}
    first = manifest["samples"][0]
    assert first["max_change"] == 4
    assert first["changed"] == pytest.approx(10 * 9 / (24 * 16))  # the mask of 8x7 and a band of one pixel around it
    assert first["protected"] is True
    assert first["source_size"] == [16, 24]
    assert manifest["totals"]["psnr"] == pytest.approx(10 * np.log10(255**2 / (16 * 90 / 384)))
    assert Manifest.read(tmp_path / "out").first_damage(tmp_path / "out") is None
    assert left_over(tmp_path / "out") == ["out"]
    (tmp_path / "out" / first["mask"]).write_bytes(b"other")
    assert Manifest.read(tmp_path / "out").first_damage(tmp_path / "out") == "masks/case/0.png"


def test_unprotected_samples_are_released_unchanged_with_their_reason(segmentation: Source, tmp_path: Path) -> None:
    def change(x: Tensor, ids: Sequence[str]) -> Tensor:
        return torch.tensor([0.3 if sample == "case/1" else 2.0 for sample in ids]).view(-1, 1, 1, 1) * inside(x)

    def inside(x: Tensor) -> Tensor:
        return segmentation.data.targets[0] * torch.ones_like(x)  # type: ignore[attr-defined]

    source = dataclasses.replace(segmentation)
    noise = Noise(change)
    noise.support = lambda targets: None  # type: ignore[method-assign]
    summary = release(source, noise, tmp_path / "out", "release")
    assert summary.reasons == {"the noise rounds to zero": 1}
    sample = manifest_of(tmp_path / "out")["samples"][1]
    assert (sample["id"], sample["protected"], sample["reason"]) == ("case/1", False, "the noise rounds to zero")
    assert sample["max_change"] == 0


def test_an_even_image_that_stays_as_it_is_ends_no_release(segmentation: Source, tmp_path: Path) -> None:
    images, masks = segmentation.data.images.clone(), segmentation.data.targets  # type: ignore[attr-defined]
    images[1], images[4] = 0, 200
    data = dataclasses.replace(segmentation.data, images=images)  # type: ignore[type-var]
    up = Noise(lambda x, ids: masks[: len(x)] * torch.where(x.flatten(1).std(1) > 0, 2.0, 0.0).view(-1, 1, 1, 1))
    summary = release(dataclasses.replace(segmentation, data=data), up, tmp_path / "out")
    # They have a mask, so they are released even where samples with nothing to protect are dropped.
    assert (summary.samples, summary.protected, summary.dropped) == (5, 3, 1)
    samples = both_manifests(tmp_path / "out")["samples"]
    assert [sample["id"] for sample in samples if not sample["protected"]] == ["case/1", "case/4"]
    assert samples[1]["reason"] == "an even image, which the method leaves as it is"


def test_classes_get_folders_and_phantoms_short_names(tmp_path: Path) -> None:
    source = open_data("phantom:cls:8:16")
    release(source, Noise(), tmp_path / "out", "release")
    manifest = manifest_of(tmp_path / "out")
    for index, sample in enumerate(manifest["samples"]):
        label = int(source.data.read([index]).targets[0])
        assert sample["file"] == f"images/{source.class_names[label]}/{index}.png"  # type: ignore[index]
        assert sample["target"] == label


def test_a_release_opens_as_a_data_set(tmp_path: Path) -> None:
    source = open_data("phantom:seg:5:16")
    release(source, Noise(), tmp_path / "out")
    opened = open_data(str(tmp_path / "out"))
    assert sorted(opened.data.ids) == ["0", "1", "2", "3", "4"]
    places = [opened.data.ids.index(str(i)) for i in range(5)]
    given, found = source.data.read(range(5)), opened.data.read(places)
    assert torch.equal(given.targets, found.targets)
    assert int((given.images.int() - found.images.int()).abs().max()) == 4


def test_an_npz_release_differs_in_the_protected_split_alone(npz: Source, tmp_path: Path) -> None:
    release(npz, Noise(), tmp_path / "out", "release")
    with np.load(npz.npz_path, allow_pickle=False) as given, np.load(tmp_path / "out" / "some.npz") as found:  # type: ignore[arg-type]
        assert given.files == found.files
        for name in given.files:
            assert (given[name].dtype, given[name].shape) == (found[name].dtype, found[name].shape)
            assert np.array_equal(given[name], found[name]) == (name != "train_images"), name
        change = np.abs(given["train_images"].astype(int) - found["train_images"])
        assert change.max() == 8
        noise = Noise()
        batch = npz.data.read([69])
        noise.fit(npz.data)
        assert (found["train_images"][69] == (noise.perturb(*batch)[0, 0] * 255).round().numpy()).all()
    assert len(manifest_of(tmp_path / "out")["samples"]) == 70
    assert Manifest.read(tmp_path / "out").first_damage(tmp_path / "out") is None


def test_several_splits_keep_their_places(npz: Source, tmp_path: Path) -> None:
    both = open_data(npz.spec, splits=("train", "val"))
    release(both, Noise(), tmp_path / "out", "release")
    with np.load(npz.spec) as given, np.load(tmp_path / "out" / "some.npz") as found:
        changed = {name for name in given.files if not np.array_equal(given[name], found[name])}
        assert changed == {"train_images", "val_images"}
        for name in changed:
            assert np.abs(given[name].astype(int) - found[name]).max() == 8
    again = open_data(str(tmp_path / "out"))
    assert again.data.ids == npz.data.ids


def test_where_all_noise_rounds_to_zero_it_is_said(segmentation: Source, tmp_path: Path) -> None:
    noise = Noise(lambda x, ids: torch.full_like(x, 0.3))
    said = "nothing is left to release .the noise rounds to zero: 5, empty mask: 1.; fit longer"
    with pytest.raises(UserError, match=said):
        release(segmentation, noise, tmp_path / "out")
    assert left_over(tmp_path / "out") == []


def refused(source: Source, protector: Any, out: Path, reason: str, empty: Any = "release") -> None:
    with pytest.raises(VerificationFailed, match=reason):
        release(source, protector, out, empty)
    assert left_over(out) == []


def grey(value: float) -> Callable[[Tensor, Sequence[str]], Tensor]:
    return lambda x, ids: torch.full_like(x, value)


def test_what_breaks_the_budget_is_no_release(
    segmentation: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = open_data("phantom:cls:8:16")
    refused(cls, Noise(grey(2.0), Budget(2, changed=0.1)), tmp_path / "a", "256 changed values of 256")
    refused(segmentation, Noise(grey(2.0)), tmp_path / "b", "case/0 is changed outside")
    refused(cls, Noise(grey(float("nan"))), tmp_path / "c", "no numbers")
    one_forgotten = Noise(
        lambda x, ids: torch.tensor([float(i != "phantom/3") for i in ids]).view(-1, 1, 1, 1) * 2 + 0 * x
    )
    refused(cls, one_forgotten, tmp_path / "d", "phantom/3 is unprotected, and nothing explains it")
    # The bound is kept by rounding, and checked on the bytes none the less.
    monkeypatch.setattr("medveil.launch.release.compare.quantise", lambda protected, original, levels: original + 3)
    refused(cls, Noise(None, Budget(2)), tmp_path / "e", "changes by 3 grey levels; the budget is 2")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "masks/case/1.png").write_bytes((folder / "masks/case/3.png").read_bytes()), "mask"),
        (lambda folder: (folder / "images/case/1.png").write_bytes(b"\x89PNG\r\n"), "read back"),
        (
            lambda folder: (folder / "images/case/2.png").write_bytes((folder / "images/case/4.png").read_bytes()),
            "changes",
        ),
        (lambda folder: (folder / "thumbnail.png").touch(), "instead of"),
    ],
)
def test_what_is_damaged_while_it_is_written_is_no_release(
    segmentation: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], reason: str
) -> None:
    monkeypatch.setattr(FolderFiles, "assemble", lambda self, indices, world: damage(self.folder))
    refused(segmentation, Noise(), tmp_path / "out", reason)


def test_a_changed_array_of_another_split_is_no_release(
    npz: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble = NpzFiles.assemble

    def tampering(self: NpzFiles, indices: Sequence[int], world: int) -> None:
        assemble(self, indices, world)
        with np.load(self.path) as found:
            arrays = {name: found[name].copy() for name in found.files}
        arrays["test_images"][0, 0, 0] ^= 1
        np.savez_compressed(self.path, **arrays)

    monkeypatch.setattr(NpzFiles, "assemble", tampering)
    refused(npz, Noise(), tmp_path / "out", "test_images.npy must stay as given")


def test_remains_of_a_dead_copy_are_cleared_and_a_release_is_never_overwritten(
    segmentation: Source, tmp_path: Path
) -> None:
    with own(tmp_path / ".out.run", {}, "f") as run:
        (run.path / "release-0123456789abcdef").mkdir()
    (tmp_path / "out.partial-0123456789abcdef" / "images").mkdir(parents=True)
    for name in ("out.partial-notes", "out.partial-fedcba9876543210"):  # a user's, and somebody else's
        (tmp_path / name).mkdir()
    (tmp_path / "out.partial-notes.txt").touch()
    release(segmentation, Noise(), tmp_path / "out")
    kept = {"out", "out.partial-notes", "out.partial-fedcba9876543210", "out.partial-notes.txt"}
    assert set(left_over(tmp_path / "out")) == kept
    with pytest.raises(UserError, match="was made by somebody else meanwhile"):
        release(segmentation, Noise(), tmp_path / "out")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
