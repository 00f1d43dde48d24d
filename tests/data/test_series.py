import numpy as np
import pytest

from historyad import open_source
from historyad.data.series import (
    apart,
    autocorrelation,
    check_times,
    in_windows,
    over_steps,
    usual_window,
)
from historyad.errors import InputError

STEPS = np.arange(20, dtype=np.float32).reshape(10, 2)  # of two channels


def windows_of(steps, length, stride=0):
    return in_windows(open_source(steps), length, stride)


def test_windows_are_the_stretches_of_a_series():
    source = windows_of(STEPS, 4, 2)
    assert source.samples.shape == (4, 4, 2)
    for window, start in zip(source.samples, (0, 2, 4, 6), strict=True):
        np.testing.assert_array_equal(window, STEPS[start : start + 4])
    assert source.names == ["0", "2", "4", "6"]
    assert source.kind == "window"
    assert source.reach == 2
    assert np.shares_memory(source.samples, source.series.steps)


def test_one_window_follows_another_after_an_eighth_of_it_unless_a_stride_is_set():
    assert windows_of(np.zeros((100, 1)), 32).series.stride == 4
    assert windows_of(np.zeros((100, 1)), 5).series.stride == 1
    assert windows_of(np.zeros((100, 1)), 56).series.stride == 4  # windows learnt from are among


def test_of_a_short_series_windows_to_learn_from_begin_closer_together():
    def stride(n_steps, length, asked=0):
        steps = open_source(np.zeros((n_steps, 1)))
        return in_windows(steps, length, asked, to_learn=True).series.stride

    assert stride(3000, 320) == 1
    assert [stride(320 + 2000 * n, 320) for n in (1, 8, 15, 16, 32, 100)] == [1, 8, 8, 16, 32, 32]
    assert stride(3000, 320, asked=40) == 40


def test_rows_that_stand_alone_and_windows_stay_as_they_are():
    source = open_source(STEPS)
    assert in_windows(source, 0, 0) is source
    windows = in_windows(source, 4, 0)
    assert in_windows(windows, 4, 0) is windows
    assert source.reach == 1


def test_windows_apart_share_no_step():
    source = apart(windows_of(STEPS, 5, 2))  # of which every third is left
    assert [window[0, 0] for window in source.samples] == [0.0]
    source = apart(windows_of(STEPS, 3, 2))
    starts = [int(window[0, 0]) // 2 for window in source.samples]
    assert starts == [0, 4]
    rows = open_source(STEPS)
    assert apart(rows) is rows


def test_a_step_has_the_mean_of_the_windows_that_it_is_in():
    source = windows_of(STEPS, 4, 2)
    found = over_steps(np.array([1.0, 3.0, 5.0, 9.0]), source.series)
    np.testing.assert_allclose(found, [1, 1, 2, 2, 4, 4, 7, 7, 9, 9])


def test_the_last_steps_have_the_last_window_where_no_further_one_fits():
    source = windows_of(STEPS[:9], 4, 3)  # windows begin at 0 and 3: steps 7 and 8 are in none
    np.testing.assert_allclose(over_steps(np.array([1.0, 3.0]), source.series)[5:], 3)


def test_a_series_that_is_shorter_than_a_window_and_images_are_refused():
    with pytest.raises(InputError, match="holds 10 steps, and a window has 11: give a longer"):
        windows_of(STEPS, 11)
    with pytest.raises(InputError, match="holds images, and window is for series: leave it 0"):
        windows_of(np.zeros((5, 8, 8), np.uint8), 2)


# --- the length of a window


def test_the_autocorrelation_is_that_of_its_definition():
    steps = np.random.default_rng(0).standard_normal((50, 1))
    x = steps[:, 0] - steps.mean()
    wanted = [(x[: 50 - lag] * x[lag:]).sum() / (x * x).sum() for lag in range(50)]
    np.testing.assert_allclose(autocorrelation(steps), wanted, atol=1e-12)
    both = np.concatenate([steps, 100 * steps, np.full((50, 1), 7.0)], axis=1)
    np.testing.assert_allclose(autocorrelation(both), wanted, atol=1e-9)
    assert not autocorrelation(np.ones((5, 2))).any()


def test_the_window_is_the_period():
    t = np.arange(2000)
    noise = 0.3 * np.random.default_rng(0).standard_normal(2000)
    for period in (12, 47, 130):
        steps = (np.sin(2 * np.pi * t / period) + noise)[:, None]
        found = usual_window(steps)
        assert min(found % period, -found % period) <= 1
        assert abs(found - period) <= 1


def test_without_a_period_the_window_has_the_usual_length():
    steps = np.random.default_rng(0).standard_normal((2000, 1))
    assert usual_window(steps) == 50
    assert usual_window(steps[:80]) == 13
    assert usual_window(np.ones((2000, 1))) == 50
    walk = np.cumsum(steps, axis=0)  # which hardly moves within a window: its small peaks are none
    assert usual_window(walk) == 50
    assert usual_window(steps[:3]) == 2


# --- time


def test_times_are_numbers_or_dates_that_rise():
    check_times(["0", "0.5", "1", "1.5"], "log.csv")
    check_times(["2026-01-31 23:59:59", "2026-02-01T00:00:00", "2026-02-01 00:00:01"], "log.csv")
    check_times(["7"], "log.csv")


def test_unsorted_times_are_refused():
    for names in (["1", "2", "1.5"], ["1", "2", "2"]):
        with pytest.raises(InputError, match=r"log.csv: the time \S+ stands below 2: sort the"):
            check_times(names, "log.csv")


def test_gaps_are_refused_and_small_ones_are_not():
    check_times(["0", "1", "2", "6", "7"], "log.csv")
    with pytest.raises(InputError, match="from 2 to 12 there is a gap of 10 usual steps: fill it"):
        check_times(["0", "1", "2", "12", "13"], "log.csv")


def test_what_is_no_time_is_refused():
    with pytest.raises(
        InputError, match=r"'31\.1\.2026' is no time: write a number, or a date such"
    ):
        check_times(["31.1.2026", "1.2.2026"], "log.csv")


def test_the_column_of_times_names_the_steps(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("when,a\n2026-01-01 00:00,1\n2026-01-01 00:01,2\n2026-01-01 00:02,4\n")
    source = open_source(path, time_column="when")
    assert list(source.names) == ["2026-01-01 00:00", "2026-01-01 00:01", "2026-01-01 00:02"]
    assert source.columns == ("a",)
    with pytest.raises(InputError, match=r"is a date or a time: .*name it with --time-column"):
        open_source(path)
    with pytest.raises(InputError, match="give --id or --time-column"):
        open_source(path, time_column="when", id_column="a")
    with pytest.raises(InputError, match="has no column 'hour'"):
        open_source(path, time_column="hour")
    path.write_text("when,a\n2,1\n1,2\n")
    with pytest.raises(InputError, match="sort the rows by time"):
        open_source(path, time_column="when")
