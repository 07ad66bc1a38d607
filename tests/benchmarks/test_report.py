"""The page of a benchmark run: ratios, goals that are met, missed and not measured, and the plot beside it."""

import json

from benchmarks import goals, report


def entry(group, provider, ms, bytes_=0, flops=0, **info):
    extra = {"provider": provider, "bytes": bytes_, "flops": flops, **info}
    return {"group": group, "extra_info": extra, "stats": {"median": ms / 1e3, "iqr": 0.0001}}


def results():
    machine = {"gpu": None, "cpu": "x86_64", "capability": "AVX512", "threads": 1, "torch": "2", "triton": "3"}
    short, long, step = "topk step 4x784 cpu", "topk step 4x150528 cpu", "salm step 4x3x28x28 cpu"
    entries = [
        entry(short, "medveil", 2.0, 10**6, 10**6),
        entry(short, "topk", 6.0, 10**6, 10**6),
        entry(short, "kthvalue", 8.0, 10**6, 10**6),
        entry(long, "medveil", 4.0, 10**6, 10**6),
        entry(long, "topk", 6.0, 10**6, 10**6),
        entry(step, "plain", 100.0, images=4),
        entry(step, "medveil", 80.0, images=4),
        entry(step, "medveil bf16", 45.0, images=4),
        entry("cdc forward 4x3x8x8 to 8 cpu", "medveil", 1.1, 10**6, 10**8),
        entry("cdc forward 4x3x8x8 to 8 cpu", "one convolution", 1.0, 10**6, 10**8),
        entry("limits copy cpu", "copy", 1.0, 10**7),
        entry("limits matmul fp32 cpu", "matmul fp32", 1.0, flops=10**9),
    ]
    return {"machine_info": {**machine, "python": "3.11"}, "commit_info": {"id": "abc"}, "benchmarks": entries}


def row(text, words):
    (line,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_goals_are_judged_by_the_worst_shape_and_the_fastest_rival():
    text = report.page(results())
    assert row(text, ["topk_masked_step", "| cpu"])[2:] == ["2.00x", "1.50x to 3.00x", "2", "no (1 of 2)"]
    assert row(text, ["SALM", "in fp32: over", "| cpu"])[3:] == ["1.25x to 1.25x", "1", "yes"]
    assert row(text, ["SALM", "in bf16: over", "| cpu"])[3:] == ["2.22x to 2.22x", "1", "yes"]
    assert row(text, ["cdc_conv2d forward:", "| cpu"])[5] == "yes"
    assert "GPU: not measured" in text


def test_what_was_not_run_is_not_measured():
    text = report.page(results())
    cuda = [goal for goal in goals.GOALS if goal.device == "cuda"]
    assert len(cuda) == 18
    for goal in cuda:
        assert row(text, [goal.what, "| cuda |"])[3] == "not measured"
    assert row(text, ["local_binary_pattern: over"])[3] == "not measured"


def test_of_several_passes_the_median_counts():
    found = results()
    found["benchmarks"] += [entry("topk step 4x784 cpu", "medveil", ms, 10**6, 10**6) for ms in (1.5, 40.0)]
    text = report.page(found)
    assert "Of 3 passes" in text and "Of 3 passes" not in report.page(results())
    assert row(text, ["topk_masked_step", "| cpu"])[3] == "1.50x to 3.00x"
    assert "40.000" not in text


def test_tables_give_rates():
    text = report.page(results())
    assert row(text, ["| plain | 100.000"])[5:] == ["40.0", "1.25x"]
    assert row(text, ["| topk | 6.000 | 0.100 | 0.2 | 0.2 |", "3.00x"])[0] == "topk"


def test_the_plot_lies_beside_the_page_and_shows_the_limits(tmp_path):
    source, target = tmp_path / "cpu.json", tmp_path / "cpu.md"
    source.write_text(json.dumps(results()))
    report.main(source, target)
    assert "](cpu.svg)" in target.read_text()
    plot = (tmp_path / "cpu.svg").read_text()
    assert all(f"<!-- {name} -->" in plot for name in ("copy", "matmul fp32", "topk step", "cdc forward"))
    report.main(source, target)
    assert (tmp_path / "cpu.svg").read_text() == plot
    assert report.points(report.grouped(results()))[0] == ("topk step", 1.0, 5e8)
