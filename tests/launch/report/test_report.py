"""The report against records with known numbers."""

import argparse
import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from medveil.errors import UserError
from medveil.launch.commands import report as command
from medveil.launch.report.blink import data_uri
from medveil.launch.report.cards import cards_of
from medveil.launch.report.classes import reached
from medveil.launch.report.cropping import gaps
from medveil.launch.report.frontier import frontiers_of
from medveil.launch.report.labels import Labels, wrapped
from medveil.launch.report.published import read_published
from medveil.launch.report.records import read_records, write_record
from medveil.launch.report.sheets import amplified
from medveil.launch.report.summary import natural, summarise
from medveil.launch.report.tables import csv_text, markdown_text
from medveil.launch.report.worst import worst_cases
from medveil.launch.report.write import write_report
from medveil.launch.results import CellResult, Exploiter, Options, Outcome, Portion

FAILED = "failed: out of memory | give <--batch-size> a smaller number"


def cell(seed: int, of_clean: float, of_protected: float, protector: str = "umed", **changes: object) -> CellResult:
    def outcome(value: float) -> Outcome:
        curve = [{"epoch": float(e), "loss": 1 / e, "dsc": value * e / 3} for e in (1, 2, 3)]
        return Outcome({"dsc": value, "jaccard": value / (2 - value)}, {"dsc": value + 0.01}, {"dsc": 0.97}, curve, 3.0)

    result = CellResult(
        "phantom-seg",
        protector,
        Options(eps="4/255"),
        Exploiter("unet"),
        "none",
        seed,
        "done",
        outcome(of_clean),
        outcome(of_protected),
        46.5,
        0.99,
        12.5,
        None,
        versions={"torch": "2.15.0"},
    )
    return replace(result, **changes)  # type: ignore[arg-type]


@pytest.fixture
def results() -> list[CellResult]:
    broken = replace(cell(2, 0, 0), status=FAILED, clean=None, protected=None, psnr=None, ssim=None, seconds=None)
    return [
        cell(1, 0.94, 0.06),
        broken,
        cell(0, 0.92, 0.02),
        cell(0, 0.9, 0.9, "none", options=Options(), psnr=math.inf, ssim=1.0),
    ]


def test_worst_case_is_the_highest_mean_over_the_attacks(tmp_path: Path) -> None:
    """With the attack that reached it, what it gives back, and the same without help from inside."""
    reached = {
        "none": (0.1, 0.2),
        "blur": (0.7, 0.5),
        "jpeg90": (0.4, 0.3),
        "jpeg10": (0.55, 0.55),
        "mix20": (0.85, 0.75),
    }
    results = [
        cell(seed, 0.95, score, attack=attack)
        for attack, scores in reached.items()
        for seed, score in enumerate(scores)
    ]
    results += [cell(0, 0.9, 0.9, "none", attack=attack, options=Options()) for attack in ("none", "blur")]
    rows = summarise(results)
    umed = next(one for one in worst_cases(rows) if one.row.protector == "umed")
    assert (umed.row.attack, umed.alone.attack, umed.attacks) == ("mix20", "blur", 5)
    assert umed.score.protected is not None
    assert umed.score.protected.mean == pytest.approx(80)
    assert umed.given_back == pytest.approx(100 * (80 - 15) / (95 - 15))
    write_report(results, tmp_path, "attacks")
    first, second = csv.DictReader((tmp_path / "worst.csv").read_text().splitlines())
    assert (second["worst"], second["attack"], second["given_back"]) == ("80.0000", "mix20", "81.2500")
    assert (first["protector"], first["given_back"]) == ("none", "")  # nothing was lost
    page = (tmp_path / "report.html").read_text()
    assert "worst of 5 attacks: <strong>mix20</strong>, 81% given back" in page
    assert [path.name for path in tmp_path.rglob("attacks-*.png")] == ["attacks-phantom-seg-unet.png"]
    assert "| 80.0 ± 7.1 | mix20 | 81% | 60.0 ± 14.1 | blur | 5 | 2 |" in (tmp_path / "results.md").read_text()


def test_seeds_that_only_attacks_have_are_held_against_the_originals_mean() -> None:
    """An audit trains the worst attacks with more seeds, the originals with the first alone."""
    results = [cell(0, 0.9, 0.1, attack="none"), cell(0, 0.9, 0.7, attack="blur")]
    results += [replace(cell(seed, 0, 0.6, attack="blur"), clean=None) for seed in (1, 2)]
    (worst,) = worst_cases(summarise(results))
    assert worst.loss is not None and worst.loss.count == 3
    assert worst.loss.mean == pytest.approx(90 - (70 + 60 + 60) / 3)


def test_lengths_are_no_percentages(tmp_path: Path) -> None:
    both = (replace(cell(0, 0.9, 0.1).clean, last={"dsc": v, "hd95": h}) for v, h in ((0.9, 2.5), (0.1, 40.0)))  # type: ignore[type-var]
    results = [replace(cell(0, 0.9, 0.1), **dict(zip(("clean", "protected"), both, strict=True)))]  # type: ignore[arg-type]
    assert ",hd95,2.5000,40.0000," in csv_text(results)
    score = summarise(results)[0].scores["hd95"]
    assert (score.clean and score.clean.mean, score.protected and score.protected.mean) == (2.5, 40.0)


def test_csv_has_exactly_the_stated_columns_and_values(results: list[CellResult]) -> None:
    lines = list(csv.reader(io.StringIO(csv_text(results))))
    assert ",".join(lines[0]) == (
        "data,protector,options,exploiter,attack,seed,metric,clean,protected,psnr,ssim,seconds,status"
    )
    name = ["phantom-seg", "umed", "eps=4/255", "unet", "none"]
    tail = ["46.5000", "99.0000", "12.5000", "done"]
    none = ["phantom-seg", "none", "", "unet", "none"]
    assert lines[1] == [*none, "0", "dsc", "90.0000", "90.0000", "inf", "100.0000", "12.5000", "done"]
    assert lines[3] == [*name, "0", "dsc", "92.0000", "2.0000", *tail]
    assert lines[5] == [*name, "1", "dsc", "94.0000", "6.0000", *tail]
    assert lines[6] == [*name, "1", "jaccard", "88.6792", "3.0928", *tail]
    assert lines[7] == [*name, "2", "", "", "", "", "", "", FAILED]
    assert len(lines) == 8


def test_mean_and_spread_are_over_finished_seeds_and_drop_is_paired(results: list[CellResult]) -> None:
    row = summarise(results)[1]
    score = row.scores["dsc"]
    assert (row.protector, len(row.cells), row.headline) == ("umed", 2, "dsc")
    assert score.clean is not None and score.protected is not None and score.drop is not None
    assert score.clean.mean == pytest.approx(93)
    assert score.protected.spread == pytest.approx(math.sqrt(8))
    assert (score.drop.mean, score.drop.spread) == (pytest.approx(89), pytest.approx(math.sqrt(2)))
    assert score.best is not None and score.best.mean == pytest.approx(5)


def test_markdown_shows_means_and_the_reason_of_a_failure(results: list[CellResult]) -> None:
    text = markdown_text(results, summarise(results), "Trial")
    assert (
        "| umed | eps=4/255 | unet | none | 93.0 ± 1.4 | 4.0 ± 2.8 | 89.0 ± 1.4 | 46.50 ± 0.00 | 99.00 ± 0.00 | 2 |"
        in text
    )
    assert "| none |  | unet | none | 90.0 | 90.0 | 0.0 | identical | 100.00 | 1 |" in text
    assert "1 of 4 cells" in text
    assert FAILED.replace("|", "\\|").replace("<", "&lt;") in text


def test_published_values_stand_beside_ours_and_missing_ones_stay_empty(
    results: list[CellResult], tmp_path: Path
) -> None:
    table = tmp_path / "published.csv"
    header = "data,protector,exploiter,attack,metric,value\n"
    table.write_text(header + "phantom-seg,umed,unet,none,dsc,0.92\nphantom-seg,none,unet,none,dsc,\n")
    none, umed = summarise(results, read_published(table))
    assert umed.scores["dsc"].difference == pytest.approx(4.0 - 0.92)
    assert none.scores["dsc"].published is None
    for line in ("phantom-seg,umed,unet,none,dsc,low", "phantom-seg,umed,unet,dsc,0.92", "a,b,c,none,dsc,1,2"):
        table.write_text(f"{header}{line}\n")
        with pytest.raises(UserError, match="line 2"):
            read_published(table)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(words))


def test_page_is_whole_in_itself_and_warns_first(results: list[CellResult], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i, result in enumerate(results):
        folder = tmp_path / "runs" / f"cell-{i}"
        folder.mkdir(parents=True)
        original = rng.integers(10, 240, (3, 16, 16, 1), dtype=np.uint8)
        np.savez(folder / "pictures.npz", original=original, protected=original + 4)
        write_record(replace(result, pictures="pictures.npz"), folder)
    assert run(str(tmp_path / "runs"), "--title", "A <trial>") == 0

    out = tmp_path / "runs" / "report"
    page = (out / "report.html").read_text()
    assert (out / "results.csv").read_text() == csv_text(results)
    assert out.stat().st_mode & 0o077 == 0
    figures = sorted(p.name for p in (out / "figures").iterdir())
    assert [name.split("-")[0] for name in figures] == ["bars", "curves", "sheet"]
    assert all(Image.open(out / "figures" / name).width == 1000 for name in figures)

    assert set(re.findall(r"""\s(?:src|href)\s*=\s*["']?(data:|#|[^"']*)""", page)) == {"data:", "#"}
    assert not re.search(r"https?://|@import|url\(|<script", page)
    # bars and curves; of two images each the original, the protected one and the noise
    assert page.count('src="data:image/png;base64,') == 2 + 2 * 3
    images = re.findall(r"<img [^>]*>", page)
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    body = page[page.index("<body>") :]
    assert re.sub(r"<[^>]+>", "", body).strip().startswith("Do not publish this report. It holds original images")
    assert "<h1>A &lt;trial&gt;</h1>" in page
    assert "out of memory | give &lt;--batch-size&gt; a smaller number" in page
    assert "torch 2.15.0" in page


def test_a_card_is_held_against_the_strongest_control_in_the_worst_case() -> None:
    reached = {
        ("salm", 5): (0.8, 0.7),  # 20 and 30 points lost in the worst case
        ("salm", 30): (0.94, 0.96),  # about 5 points
        ("em", 8): (0.99, 1.01),
        ("random", 30): (0.95, 0.94),
        ("random", 5): (0.99, 1.0),
    }
    cells = [
        cell(seed, 1.0, score if attack == "blur" else 0.2, name, options=Options(k=k), attack=attack)
        for (name, k), scores in reached.items()
        for seed, score in enumerate(scores)
        for attack in ("none", "blur")
    ]
    found = {(card.row.protector, card.row.options["k"]): card for card in cards_of(summarise(cells))}
    assert {key: card.verdict for key, card in found.items()} == {
        ("salm", 5): "protects",
        ("salm", 30): "even",
        ("em", 8): "nothing",
        ("random", 30): "control",
        ("random", 5): "control",
    }
    assert next(iter(found)) == ("salm", 5)
    best = found["salm", 5]
    assert best.loss is not None and best.beyond is not None
    assert best.loss.mean == pytest.approx(25)
    assert best.beyond.mean == pytest.approx(25 - 5.5)
    assert best.beyond.spread == pytest.approx(math.sqrt(50 + 0.5))


def test_cards_are_of_an_exploiter_and_not_of_an_authorised_users_model() -> None:
    user = cell(0, 0, 0, exploiter=Exploiter("segmenter", authorised="my lungs"), clean=None)
    user = replace(user, protected=Outcome({"differing_pixels": 0.004}))
    (card,) = cards_of(summarise([user, cell(0, 0.9, 0.3)]))
    assert (card.row.model, card.metric) == ("unet", "dsc")
    assert cards_of(summarise([user])) == []


def test_sets_whose_names_have_the_same_latin_letters_keep_their_own_figures(tmp_path: Path) -> None:
    write_report([cell(0, 0.9, 0.1, data="Лёгкие"), cell(0, 0.9, 0.8, data="Печень")], tmp_path, "Trial")
    bars = [path.read_bytes() for path in (tmp_path / "figures").glob("bars*.png")]
    assert len(set(bars)) == 2
    page = (tmp_path / "report.html").read_text()
    assert all(data_uri(one) in page for one in bars)


def test_noise_of_more_than_half_the_range_is_cut_and_not_hidden() -> None:
    shown, gain, largest = amplified(np.array([[200, -200, 3]], dtype=np.int16))
    assert (shown.tolist(), gain, largest) == ([[255, 0, 131]], 1, 200)


def test_a_protector_tried_with_several_strengths_has_a_frontier(tmp_path: Path) -> None:
    strengths = ((5, 48.0, 0.9), (30, 40.0, 0.6))
    cells = [cell(0, 0.95, score, "salm", options=Options(k=k), psnr=psnr) for k, psnr, score in strengths]
    cells += [cell(0, 0.95, 0.95, "none", options=Options(), psnr=math.inf)]
    points = frontiers_of(summarise(cells))["salm"]
    assert [(one.psnr, one.reached.mean) for one in points] == [(40.0, 60.0), (48.0, 90.0)]
    assert not frontiers_of(summarise(cells[1:]))
    write_report(cells, tmp_path, "strengths")
    assert "salm: 60.0 at 40.0 dB, 90.0 at 48.0 dB" in (tmp_path / "report.html").read_text()


def test_the_page_says_how_long_and_how_wide_was_trained(tmp_path: Path) -> None:
    result = cell(0, 0.9, 0.3)
    assert result.protected is not None
    trained = replace(result.protected, training={"width": 8, "epochs": 12, "batch_size": 16})
    write_report([replace(result, protected=trained)], tmp_path, "Trial")
    assert "DSC of unet, width 8, 12 epochs, batches of 16, on clean" in (tmp_path / "report.html").read_text()


def test_without_originals_or_with_failures_only_there_is_still_a_report(tmp_path: Path) -> None:
    alone = cell(0, 0.9, 0.3, clean=None, psnr=None, ssim=None)
    broken = cell(0, 0, 0, data="lungs", status="skipped: its release failed", clean=None, protected=None, psnr=None)
    write_report([alone, broken], tmp_path / "report", "Trial")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "no originals to compare with" in page
    assert "skipped: its release failed" in page
    write_report([broken], tmp_path / "report", "Trial")
    assert not list((tmp_path / "report" / "figures").iterdir())


def test_one_record_a_cell_and_a_finished_one_wins(results: list[CellResult], tmp_path: Path) -> None:
    for name, result in (("a", results[0]), ("b", replace(results[0], status="failed: x")), ("c", results[2])):
        write_record(result, tmp_path / name)
    assert read_records(tmp_path) == [results[2], results[0]]


def test_bad_folders_and_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        read_records(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no result\.json"):
        read_records(tmp_path)
    (tmp_path / "result.json").write_text('{"data": 1}')
    with pytest.raises(UserError, match=r"result\.json is not a record"):
        read_records(tmp_path)


def classified(seed: int, clean: float, protected: float, **changes: object) -> CellResult:
    def outcome(value: float) -> Outcome:
        points = [[float(i), float(i % 3), i % 2, int(i > 4)] for i in range(10)]
        curve = [{"epoch": e, "loss": 1 / e, "accuracy": value} for e in (1.0, 2.0)]
        return Outcome({"accuracy": value}, {}, {}, curve, 1.0, [[3, 1], [0, 4]], points)

    exploiter = Exploiter("resnet18", Options(width=8))
    words = {"data": "set", "exploiter": exploiter, "options": Options(), "protector": "salm", **changes}
    return replace(cell(seed, 0, 0), clean=outcome(clean), protected=outcome(protected), **words)  # type: ignore[arg-type]


def test_the_gap_is_how_much_more_the_protected_accuracy_falls_by_cropping(tmp_path: Path) -> None:
    cells = [classified(0, 0.90, 0.60), classified(0, 0.84, 0.50, attack="crop75"), classified(1, 0.90, 0.60)]
    table = tmp_path / "published.csv"
    table.write_text("data,protector,exploiter,attack,metric,value\nset,salm,resnet18 width=8,crop75,gap,1.2\n")
    rows = summarise(cells, read_published(table))
    (one,) = gaps(rows)
    # (60 - 50) - (90 - 84), of the one seed that has both
    assert (one.gap.mean, one.gap.count) == (pytest.approx(4.0), 1)
    text = markdown_text(cells, rows, "Trial")
    assert "| 90.0 ± 0.0 | 84.0 | 60.0 ± 0.0 | 50.0 | +4.0 | +1.2 | 1 |" in text


def test_cost_and_similarity_stand_beside_the_scores() -> None:
    spent = {"seconds_per_1000_images": 2.5, "peak_memory_bytes_per_1000_images": 2**29}
    cells = [classified(s, 0.9, 0.6, spent=spent, similarity={"nmi": 0.4 + s / 10, "ssim": 0.9}) for s in (0, 1)]
    text = markdown_text(cells, summarise(cells), "Trial")
    assert "| 2 | 2.50 ± 0.00 | 0.50 ± 0.00 |" in text
    assert "| 90.00 ± 0.00 |  |  |  | 45.00 ± 7.07 | 2.50 ± 0.00 | 0.50 ± 0.00 | 2 |" in text


def test_labels_name_only_what_differs() -> None:
    tried = (Options(steps=9), Options(mode="strict", steps=9))
    rows = summarise([classified(0, 0.9, 0.6, options=one) for one in tried])
    labels = Labels.of(rows)
    assert [labels.protector(row) for row in rows] == ["salm · mode=strict", "salm"]
    assert labels.exploiter(rows[0]) == "resnet18"
    assert labels.style(rows[0]) != labels.style(rows[1])
    assert sorted(["k=10", "k=5", "k=20"], key=natural) == ["k=5", "k=10", "k=20"]
    assert max(map(len, wrapped("mode=strict " * 9, 30).splitlines())) <= 30


def test_every_figure_of_salm_is_drawn(tmp_path: Path) -> None:
    cells = [classified(s, 0.9, 0.5 + k / 1000, options=Options(k=k)) for k in (5, 10, 20) for s in (0, 1)]
    for part in get_args(Portion):
        cells.append(
            classified(0, 0.9, 0.6, data="mix", options=Options(share=80), exploiter=Exploiter("resnet18", part=part))
        )
    named = classified(0, 0.9, 0.6, data="classes", options=Options(mode="strict", classes="cross,stripes of skin"))
    assert named.protected is not None
    cells.append(replace(named, protected=replace(named.protected, protected_classes=[1])))
    masks = np.zeros((2, 8, 8), dtype=bool)
    image = np.full((2, 8, 8, 1), 90, dtype=np.uint8)
    np.savez(tmp_path / "seen.npz", original=image, protected=image + 3, on_original=masks, on_protected=~masks)
    seen = Outcome({"differing_pixels": 0.004}, pictures=str(tmp_path / "seen.npz"))
    user = classified(0, 0, 0, data="user", exploiter=Exploiter("unet", authorised="my lungs"))
    cells.append(replace(user, clean=None, protected=seen))
    write_report(cells, tmp_path / "report", "Trial")
    drawn = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    assert [name for name in drawn if not name.startswith(("bars", "curves"))] == [
        "authorised-user-salm-unet-authorised=my-lungs.png",
        "by-k-set-resnet18-width=8-none.png",
        "classes-classes-salm-mode=strict-classes=cross-stripes-of-skin.png",
        "confusion-classes-salm-mode=strict-classes=cross-stripes-of-skin-resnet18-width=8-none.png",
        "mix-mix-salm-share=80-resnet18-none.png",
        "tsne-classes-salm-mode=strict-classes=cross-stripes-of-skin-resnet18-width=8-none.png",
        "tsne-mix-salm-share=80-resnet18-none.png",
        *(f"tsne-set-salm-k={k}-resnet18-width=8-none.png" for k in (10, 20, 5)),
    ]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Over all images 0.40% of the pixels differ" in page
    assert "a release of which the classes 1 are protected (in bold)" in page


def test_bars_of_the_protected_classes_stand_beside_those_of_the_originals() -> None:
    """Figure 7: what the originals teach of the protected class, what the release does, and what of the others."""
    one = classified(0, 0.9, 0.6)
    assert one.clean is not None and one.protected is not None
    clean = replace(one.clean, confusion=[[9, 1], [2, 8]])
    protected = replace(one.protected, confusion=[[10, 0], [7, 3]], protected_classes=[1])
    (row,) = summarise([replace(one, clean=clean, protected=protected)])
    stats = reached(row)
    assert stats is not None
    assert [stat.mean for stat in stats] == pytest.approx([80, 30, 100])
    (whole,) = summarise([one])
    assert reached(whole) is None  # all of it is protected


def test_records_of_one_release_are_united_and_releases_called_alike_told_apart(tmp_path: Path) -> None:
    def kept(name: str, **changes: object) -> None:
        write_record(classified(0, 0.9, 0.6, **changes), tmp_path / name)

    kept("sweep", options=Options(k=10, mode="strict"), release="aa", release_name="protect-1")
    kept("audit", options=Options(mode="strict"), data="elsewhere", release="aa", exploiter=Exploiter("vgg11"))
    kept("first", options=Options(mode="paper"), release="bb", release_name="k10")
    kept("other", options=Options(mode="paper"), release="cc", release_name="k30")
    found = [(c.data, str(c.options), c.exploiter_text) for c in read_records(tmp_path)]
    assert found == [
        ("set", "k=10 mode=strict", "resnet18 width=8"),
        ("set", "k=10 mode=strict", "vgg11"),
        ("set", "mode=paper release=k10", "resnet18 width=8"),
        ("set", "mode=paper release=k30", "resnet18 width=8"),
    ]
