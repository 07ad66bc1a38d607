"""Predictions from counts: the page has those of the budgets as they are."""

import pytest

from benchmarks import predicted


def test_the_page_is_that_of_the_counts():
    text = predicted.PAGE.read_text()
    assert predicted.page(text) == text


def test_a_share_is_that_of_bytes_and_instructions():
    counts = {"kernel": {"elements": 128, "sm_90": {"loop": 64, "all": 640}}}
    row = predicted.Row("a kernel", 3.0, (("kernel", 2, 1, 3),), again=1.0)
    issued = (2 * 64 + 640) / (3 * 128)
    assert predicted.instructions(row, counts) == pytest.approx(issued)
    bytes_, slots = 1 / predicted.COPY, issued / predicted.ISSUE
    assert predicted.share(row, counts) == pytest.approx(
        (3 * bytes_ / (4 * bytes_ + slots), 3 * bytes_ / max(4 * bytes_, slots))
    )
