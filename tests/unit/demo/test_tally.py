"""Counting what became of submitted runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.demo.submit import tally
from core.runs.model import Cause, RunState

views = st.fixed_dictionaries(
    {
        "state": st.sampled_from([state.value for state in RunState]),
        "outcome": st.sampled_from([None, "approved", "declined"]),
        "cause": st.sampled_from([None, *[cause.value for cause in Cause]]),
    }
)
names = st.integers(0, 30).map("run_{}".format)


@given(st.lists(names, unique=True), st.dictionaries(names, views), st.dictionaries(names, st.integers(1, 3)))
def test_every_submitted_run_is_counted_exactly_once_and_no_other(
    submitted: list[str], found: dict[str, dict[str, str]], duplicated: dict[str, int]
) -> None:
    result = tally(submitted, found, duplicated, 1.0)
    parts = (result.succeeded, result.declined, result.in_review, result.failed, result.waiting, result.lost)
    assert sum(parts) == result.submitted == len(submitted)
    assert result.lost == len(set(submitted) - set(found))
    assert result.duplicated_effects == sum(duplicated.get(name, 0) for name in submitted)
    assert result.good == (result.lost == 0 and result.failed == 0 and result.duplicated_effects == 0)


def test_an_ending_is_told_by_state_outcome_and_cause() -> None:
    found = {
        "a": {"state": "succeeded", "outcome": "approved", "cause": None},
        "b": {"state": "succeeded", "outcome": "declined", "cause": None},
        "c": {"state": "waiting", "outcome": None, "cause": "review"},
        "d": {"state": "waiting", "outcome": None, "cause": "rate"},
        "e": {"state": "running", "outcome": None, "cause": None},
        "f": {"state": "cancelled", "outcome": None, "cause": None},
    }
    result = tally([*found, "g"], found, {"b": 1, "z": 5}, 2.0)
    assert (result.succeeded, result.declined, result.in_review, result.failed) == (1, 1, 1, 1)
    assert (result.waiting, result.lost, result.duplicated_effects) == (2, 1, 1)
