"""The bound in every declared window: what may change by how much, against the definition itself."""

import numpy as np
import pytest

from medveil.errors import UserError
from medveil.launch.data.formats.stored import Stored
from medveil.launch.data.formats.windows import (
    CT,
    EIGHT_BITS,
    Scale,
    Window,
    allowed,
    change_in_levels,
    check_room,
    parse_windows,
    percentile_window,
)


def by_definition(stored: int, scale: Scale, windows: tuple[Window, ...], levels: int) -> np.ndarray:
    """Every number within the bound, of all that are tried."""

    def q(s: np.ndarray | int, window: Window) -> np.ndarray:
        value = scale.slope * s + scale.intercept
        return 255 * np.clip((value - window.low) / (window.high - window.low), 0, 1)

    cap = levels / 255 * max(window.high - window.low for window in windows)
    tried = np.arange(-4000, 5000)
    within = np.abs(scale.slope * (tried - stored)) <= cap + 1e-9
    for window in windows:
        within &= np.abs(q(tried, window) - q(stored, window)) <= levels + 1e-9
    return tried[within]


@pytest.mark.parametrize(
    ("scale", "windows"),
    [
        (Scale(1, -1024), CT),
        (Scale(-2, 300), (Window("a", -100, 155),)),
        (Scale(0.684, 200), (Window("narrow", 0, 80), Window("wide", -500, 2000))),
    ],
)
def test_a_voxel_may_take_the_values_that_the_definition_allows_and_no_other(
    scale: Scale, windows: tuple[Window, ...]
) -> None:
    stored = np.arange(-400, 2600, 37, dtype=np.int16)
    low, high = allowed(stored, scale, windows, 4)
    for s, first, last in zip(stored.tolist(), low, high, strict=True):
        expected = by_definition(s, scale, windows, 4)
        assert (expected[0], expected[-1]) == (first, last), s
        assert len(expected) == last - first + 1


def test_eight_bits_are_a_window_like_another() -> None:
    stored = Stored(np.array([[[0, 2, 128, 253, 255]]], np.uint8), windows=EIGHT_BITS)
    noise = np.array([[9, -9, 2.5, 9, -9]], np.float32)
    assert stored.changed(0, noise, EIGHT_BITS, 4).tolist() == [[4, 0, 130, 255, 251]]
    assert stored.changed(0, noise, EIGHT_BITS, None).tolist() == [[9, 0, 130, 255, 246]]


def test_padding_limits_and_support_hold() -> None:
    values = np.array([[[-2000, -1999, 10, 4095, 50]]], np.int16)
    stored = Stored(values, Scale(1, 0), (-4096, 4095), values == -2000, CT, voids=((-2000, -2000),))
    noise = np.array([[5, -4, 4, 4, 4]], np.float32)
    support = np.array([[True, True, True, True, False]])
    # 4095 is the largest number, and the last voxel is outside the support.
    assert stored.changed(0, noise, CT, 4, support).tolist() == [[-2000, -2005, 16, 4095, 50]]
    # A step of one would make -1999 look like padding.
    assert stored.changed(0, np.full((1, 5), -255 / 400, np.float32), CT, 4)[0, 1] == -1999
    # So it does where nothing is padding yet.
    none = Stored(values[..., 1:], Scale(1, 0), (-4096, 4095), None, CT, voids=((-2000, -2000),))
    assert none.changed(0, np.full((1, 4), -255 / 400, np.float32), CT, 4)[0, 0] == -1999


def test_numbers_of_32_bits_are_not_rounded_out_of_the_bound() -> None:
    """Between 1000 and 1000.02 there are few of them."""
    window = Window("narrow", 1000, 1000.02)
    values = np.linspace(1000.001, 1000.019, 50, dtype=np.float32).reshape(1, 5, 10)
    stored = Stored(values, limits=(-np.inf, np.inf), windows=(window,))
    for sign in (-4, 4):
        after = stored.changed(0, np.full((5, 10), sign, np.float32), (window,), 4)
        assert after.dtype == np.float32
        change = change_in_levels(values[0], after, Scale(), (window,))
        assert 2 < change.max() <= 4 + 1e-9


def test_inverted_images_are_bright_where_they_are_low() -> None:
    stored = Stored(np.array([[[0, 100, 255]]], np.uint8), windows=EIGHT_BITS, inverted=True)
    assert stored.grey(0, EIGHT_BITS[0]).tolist() == [[255, 155, 0]]
    brighter = stored.changed(0, np.full((1, 3), 3, np.float32), EIGHT_BITS, 4)
    assert brighter.tolist() == [[0, 97, 252]]


def test_the_same_numbers_with_and_without_a_table() -> None:
    """Where there are fewer numbers than voxels they are looked up; where not, computed."""
    many = np.repeat(np.array([-1000, 30, 40, 3000], np.int16), 2000)
    few = np.array([-1000, 30, 40, 3000], np.int16)
    for table, direct in zip(allowed(many, Scale(), CT, 4), allowed(few, Scale(), CT, 4), strict=True):
        assert np.array_equal(table[::2000], direct)
    assert np.array_equal(
        change_in_levels(many, many + 3, Scale(), CT)[::2000], change_in_levels(few, few + 3, Scale(), CT)
    )


def test_where_no_window_has_room_the_bound_is_refused() -> None:
    check_room(3.774, (Window("VOI", 0, 2000),), 4, "mr.dcm")
    with pytest.raises(UserError, match=r"mr\.dcm: 4 grey levels of window VOI \(200 wide\)"):
        check_room(3.774, (Window("VOI", 0, 200),), 4, "mr.dcm")


def test_percentiles_are_of_the_whole_volume_and_need_two_values() -> None:
    first, second = np.arange(500, dtype=np.int16), np.arange(500, 1001, dtype=np.int16)
    window = percentile_window([first, second], Scale(2, 10))
    assert window is not None
    assert (window.low, window.high) == (20, 2000)
    rare = np.array([0] * 999 + [7], np.int16)
    assert percentile_window([rare], Scale()) == Window("percentiles 0.5 to 99.5", 0, 7)
    assert percentile_window([np.full(10, 3, np.int16)], Scale()) is None


def test_windows_are_read_as_people_write_them() -> None:
    assert parse_windows("ct") == CT
    assert [(w.low, w.high) for w in parse_windows("400/40, 80/40")] == [(-160, 240), (0, 80)]
    for bad in ("400", "400/40/3", "a/b", "-5/0", "nan/0"):
        with pytest.raises(UserError):
            parse_windows(bad)
