"""All waiting of a run has a cause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.runs.model import Cause
from core.runs.waiting import Parking, Passage, by_cause

NINE = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CAUSES = st.sampled_from([Cause.REVIEW, Cause.TIMER, Cause.RATE, Cause.BUDGET])


def at(seconds: float) -> datetime:
    return NINE + timedelta(seconds=seconds)


def test_queue_and_parked_times_are_told_apart_by_cause() -> None:
    passages = [
        Passage(at(0), at(10), at(12), False, 4, 3, 1, 1),
        Passage(at(72), at(75), at(80), False, 0, 0, 0, 0),
        Passage(at(100), None, None, None, 20, 0, 0, 2),
    ]
    parkings = [Parking(at(12), Cause.REVIEW), Parking(at(80), Cause.RATE)]
    assert by_cause(passages, parkings, at(130)) == {
        Cause.CAP: 24,
        Cause.PAUSED: 3,
        Cause.NO_WORKER: 1,
        Cause.NO_CODE: 1 + 2,
        Cause.SHARE: 1 + 3 + 8,
        Cause.REVIEW: 60,
        Cause.RATE: 20,
    }


def test_between_a_failure_and_its_retry_nothing_is_waited_for() -> None:
    passages = [Passage(at(n), at(n), at(n + 2), False, 0, 0, 0, 0) for n in (0, 500)]
    parkings = [Parking(at(2), None), Parking(at(502), None)]
    assert by_cause(passages, parkings, at(900)) == {}


@given(
    st.lists(
        st.tuples(
            *(st.floats(0, 100), st.floats(0, 120), st.floats(0, 120), st.floats(0, 120)),
            *(st.floats(0, 100), CAUSES, st.floats(0, 100)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_causes_add_up_to_everything_that_was_not_work(
    lives: list[tuple[float, float, float, float, float, Cause, float]],
) -> None:
    moment, passages, parkings, worked = 0.0, [], [], 0.0
    for queued, capped, paused, no_code, held, cause, parked in lives:
        # Clocks that say too much must not make the sum wrong.
        claimed, released = at(moment + queued), at(moment + queued + held)
        passages.append(Passage(at(moment), claimed, released, False, capped, paused, 0, no_code))
        moment += queued + held
        worked += (passages[-1].released_at - passages[-1].claimed_at).total_seconds()  # type: ignore[operator]
        parkings.append(Parking(at(moment), cause))
        moment += parked
    waited = by_cause(passages, parkings, at(moment))
    assert sum(waited.values()) == pytest.approx((at(moment) - NINE).total_seconds() - worked, abs=0.01)
