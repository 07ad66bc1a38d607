"""The figure of what each protector adds: the same images in the paper's columns, UMed's noise parted at its band."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from medveil.kernels import contour_band
from medveil.launch.report import comparison
from medveil.launch.report.comparison import columns_of, draw_comparisons
from medveil.launch.report.figures import STYLE
from medveil.launch.report.picture import Picture, save
from medveil.launch.report.sheets import Samples
from medveil.launch.report.summary import summarise
from medveil.launch.report.write import write_report
from medveil.launch.results import CellResult, Exploiter, Options, Outcome

SIDE = 16


def samples(levels: int, order: list[int], seed: int) -> Samples:
    """Three grey images with a square mask, in ``order``, changed by up to ``levels`` within it and about its edge."""
    original = np.random.default_rng(0).integers(60, 180, (3, SIDE, SIDE, 1), dtype=np.uint8)
    masks = np.zeros_like(original)
    masks[:, 4:11, 5:12] = 1
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, original.shape)
    noise[:, :3], noise[:, 12:], noise[:, :, :4], noise[:, :, 13:] = 0, 0, 0, 0
    return Samples(original[order], (original + noise).astype(np.uint8)[order], masks[order])


def record(protector: str, kept: Samples, folder: Path, options: Options | None = None) -> CellResult:
    path = folder / f"{protector}-{len(options or {})}.npz"
    np.savez(path, original=kept.original, protected=kept.protected, masks=kept.masks)
    outcome = Outcome({"dsc": 0.5})
    return CellResult(
        data="lungs",
        protector=protector,
        options=options or Options(),
        exploiter=Exploiter("unet"),
        attack="none",
        seed=0,
        status="done",
        clean=outcome,
        protected=outcome,
        pictures=str(path),
    )


def test_umeds_noise_is_parted_at_its_band_and_rivals_show_the_same_images() -> None:
    umed, lsp, em = samples(4, [0, 1, 2], 1), samples(9, [2, 0, 1], 2), samples(4, [1, 2], 3)
    assert umed.masks is not None
    band = contour_band(torch.from_numpy(umed.masks).permute(0, 3, 1, 2), 1).permute(0, 2, 3, 1).numpy()
    columns, gain = columns_of(umed, band, {"em": em, "lsp": lsp})
    assert [title for title, _ in columns] == ["original", "EM", "LSP", "$G_c$", "$G_t$", "protected"]
    assert gain == 18
    shown = dict(columns)
    assert np.array_equal(shown["original"], umed.original[1:])
    contour, texture = (shown[name].astype(int) - 128 for name in ("$G_c$", "$G_t$"))
    assert np.array_equal(contour + texture, gain * umed.noise[1:])
    assert contour.any() and texture.any() and not contour[~band[1:]].any() and not texture[band[1:]].any()
    assert np.array_equal(shown["EM"].astype(int) - 128, gain * em.noise)
    assert np.array_equal(shown["LSP"], (128 + gain * lsp.noise[[2, 0]]).clip(0, 255))


def test_it_is_drawn_for_plain_umed_beside_a_rival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    def seen(figure: Figure, *rest: Any) -> Picture:
        drawn.append(figure)
        return save(figure, *rest)

    monkeypatch.setattr(comparison, "save", seen)
    umed = record("umed", samples(4, [0, 1, 2], 1), tmp_path)
    wider = record("umed", samples(8, [0, 1, 2], 1), tmp_path, Options(eps="8/255", band=2))
    em = record("em", samples(4, [0, 1, 2], 3), tmp_path)
    with mpl.rc_context(STYLE):
        (picture,) = draw_comparisons(summarise([wider, umed, em]), tmp_path)
    assert Image.open(picture.path).width == 2000
    assert {text.get_text() for text in drawn[0].texts if text.get_parse_math()} == {"$G_c$", "$G_t$"}
    assert "18 times" in picture.caption and "EM" in picture.alt
    (picture,) = draw_comparisons(summarise([wider, em]), tmp_path)
    assert "9 times" in picture.caption


def test_a_rival_of_another_data_set_is_not_beside_it(tmp_path: Path) -> None:
    umed, em = record("umed", samples(4, [0, 1, 2], 1), tmp_path), record("em", samples(4, [0], 3), tmp_path)
    write_report([umed, em], tmp_path / "same", "one set")
    write_report([umed, replace(em, data="kvasir-seg")], tmp_path / "other", "two sets")
    assert [len(list((tmp_path / name / "figures").glob("comparison*"))) for name in ("same", "other")] == [1, 0]
