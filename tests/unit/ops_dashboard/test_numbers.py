"""A whole number is read as it is written, and what is none is never cut to one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput
from ops_dashboard.numbers import read, whole


@pytest.mark.parametrize(
    ("written", "is_read"),
    [(1e5, 100_000), (3.0, 3), (-2.0, -2), (7, 7), (None, None), (1.5, 1.5), (math.inf, math.inf)],
)
def test_a_number_stays_what_it_is_and_is_whole_when_it_can_be(written: float | None, is_read: float | None) -> None:
    assert (read(written), type(read(written))) == (is_read, type(is_read))


@given(st.floats(allow_nan=False))
def test_whatever_is_written_is_taken_exactly_or_refused(written: float) -> None:
    if written.is_integer():
        assert whole(written, "Runs a day") == int(written)
    else:
        with pytest.raises(InvalidInput, match="Runs a day: a whole number, not "):
            whole(written, "Runs a day")


def test_an_empty_field_is_no_number() -> None:
    assert whole(None, "Slots") is None
