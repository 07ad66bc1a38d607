"""A table laid out as a paper has it."""

import pytest

from medveil.config import build
from medveil.errors import UserError
from medveil.launch.report.config import Layout
from medveil.launch.report.layout import table_of
from medveil.launch.report.summary import summarise
from medveil.launch.results import CellResult, Exploiter, Options, Outcome

SCORES = {("busi", "unet"): 0.2, ("busi", "transunet"): 0.4, ("lungs", "unet"): 0.9}
PUBLISHED = {
    ("busi", "umed", "", "unet", "none", "dsc_pooled"): 10.0,
    ("busi", "umed", "", "transunet", "none", "dsc_pooled"): 20.0,
    ("busi", "umed", "", "", "none", "psnr"): 50.0,
}


def rows(protectors: tuple[str, ...] = ("umed", "em")):
    cells = [
        CellResult(
            data, protector, Options(), Exploiter(model), "none", seed, "done",
            protected=Outcome({"dsc_pooled": score + 0.1 * seed, "jaccard_pooled": score / 2}), psnr=45.0, ssim=0.99,
        )
        for protector in protectors
        for (data, model), score in SCORES.items()
        for seed in (0, 1)
    ]  # fmt: skip
    return summarise(cells, PUBLISHED)


def test_exploiters_stand_across_and_a_line_has_its_average():
    layout = Layout(rows=["data", "protector"], columns=["exploiter"], values=["dsc_pooled"], average=True)
    head, body = table_of(rows(), layout)
    assert head == ["data · protector", "transunet DSC, pooled", "unet DSC, pooled", "average DSC, pooled"]
    lines = {line[0]: line[1:] for line in body}
    assert lines["busi · umed"] == ["45.00 (20.00)", "25.00 (10.00)", "35.00 (15.00)"]
    assert lines["busi · em"] == ["45.00", "25.00", "35.00"]
    assert lines["lungs · umed"] == ["", "95.00", ""]  # one exploiter of two has no average


def test_likeness_stands_across_data_sets():
    head, body = table_of(rows(("umed",)), Layout(values=["psnr", "ssim"]))
    assert head == ["protector", "busi PSNR", "busi SSIM", "lungs PSNR", "lungs SSIM"]
    assert body == [["umed", "45.00 (50.00)", "99.00", "45.00", "99.00"]]


def test_what_stands_on_neither_side_is_told_apart_and_not_overwritten():
    layout = Layout(rows=["protector"], columns=["exploiter"], values=["dsc_pooled"])
    _, body = table_of(rows(("umed",)), layout)
    assert body == [["umed · busi", "45.00 (20.00)", "25.00 (10.00)"], ["umed · lungs", "", "95.00"]]


def test_parts_can_be_held_fast():
    layout = Layout(rows=["protector"], columns=["exploiter"], values=["jaccard_pooled"], only={"data": "lungs"})
    assert table_of(rows(("umed",)), layout) == (["protector", "unet Jaccard, pooled"], [["umed", "45.00"]])


def test_a_layout_that_is_none_is_refused_by_name():
    with pytest.raises(UserError, match="colums"):
        build(Layout, {"colums": ["data"]}, "x: layout")
    for name, wrong in (("rows", ["seed"]), ("only", {"seed": "0"})):
        with pytest.raises(UserError, match=name):
            build(Layout, {name: wrong}, "x: layout")
