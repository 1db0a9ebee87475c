"""Fixations of one eye: none overlaps another, so that their durations are the time that the eye rested."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.fixations import valid_fixations
from dataset_scripts.report import Ledger
from dataset_scripts.schema import UserError

TABLE = "fixations"
rows = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=30
)


def kept(rows, lost=None):
    """What is left of rows of start, duration and x, and the ledger."""
    ledger = Ledger()
    start, duration, x = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    columns = {"x": x, "y": np.full(len(x), 0.5), "start": start, "duration": duration}
    found = valid_fixations(columns, TABLE, "r1", ledger, lost)
    ledger.check()
    return found, ledger


def dropped(ledger):
    return {reason: found.count for reason, found in ledger.tables[TABLE].dropped.items()}


@pytest.mark.parametrize("order", [1, -1])
def test_a_fixation_reported_as_it_grows_counts_once(order):
    """Four rows of one start add up to 1.0 s for an eye that rested for 0.4."""
    found, ledger = kept([(2.0, 0.1, 0.3), (2.0, 0.2, 0.31), (2.0, 0.3, 0.32), (2.0, 0.4, 0.33)][::order])
    assert (found["start"], found["duration"], found["x"]) == ([2.0], [0.4], [0.33])
    assert dropped(ledger) == {"within_another_fixation": 3} and not ledger.notes


def test_of_rows_with_the_same_time_the_last_stays():
    found, ledger = kept([(2.0, 0.4, 0.3), (2.0, 0.4, 0.35), (1.0, 0.5, 0.1)])
    assert found["x"] == [0.1, 0.35]
    assert ledger.tables[TABLE].dropped["within_another_fixation"].first == ["r1 row 1"]


def test_a_growing_fixation_whose_start_shakes_counts_once():
    found, _ = kept([(2.0 + 1e-8 * n, 0.1 * n, 0.3) for n in range(1, 5)])
    assert len(found["x"]) == 1 and found["duration"] == pytest.approx([0.4])


def test_a_fixation_that_lasts_into_the_next_ends_there_and_is_noted():
    found, ledger = kept([(1.0, 0.5, 0.1), (1.25, 0.5, 0.2), (3.0, 0.25, 0.3)])
    assert found["duration"] == [0.25, 0.5, 0.25] and dropped(ledger) == {}
    assert ledger.notes["fixations_end_where_the_next_begins"].first == ["r1: 1 of 3 by 0.25 s together, row 1"]


def test_times_that_only_touch_are_left_as_they_are():
    times = np.round(np.arange(50) * 0.1, 3)
    found, ledger = kept([(time, 0.1, 0.5) for time in times])
    assert found["duration"] == [0.1] * 50 and not ledger.notes and dropped(ledger) == {}


@given(rows)
def test_durations_add_up_to_the_time_that_any_row_covers(rows):
    """Whole seconds: what the rows cover is counted second by second."""
    found, ledger = kept(rows)
    covered = {second for start, duration, _ in rows for second in range(start, start + duration)}
    start, duration = np.array(found["start"]), np.array(found["duration"])
    assert duration.sum() == len(covered) and (duration > 0).all()
    assert (start[:-1] + duration[:-1] <= start[1:]).all() and (np.diff(start) > 0).all()
    assert sum(dropped(ledger).values()) + len(start) == len(rows)
    again, second_ledger = kept(np.stack([start, duration, found["x"]], axis=1))
    assert again == found and dropped(second_ledger) == {} and not second_ledger.notes


@pytest.mark.parametrize("column", ["x", "start", "duration"])
def test_a_column_without_a_number_is_an_error(column):
    values = {"x": [0.5, 0.6], "y": [0.5, 0.6], "start": [1.0, 2.0], "duration": [0.2, 0.2]} | {column: [np.nan] * 2}
    with pytest.raises(UserError, match=f"r1: fixations: no row has a number as {column}; expected"):
        valid_fixations({name: np.array(cells) for name, cells in values.items()}, TABLE, "r1", Ledger())


def test_numbers_too_large_to_reckon_with_are_no_numbers():
    found, ledger = kept([(1e308, 1e308, 0.5), (-1.7e308, 1.0, 0.5), (1.0, 0.5, 0.5)])
    assert found["start"] == [1.0] and dropped(ledger) == {"not_a_number": 2}
