"""What is said about a burst, from the runs' moments alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.demo.burst_report import Part, Passage, percentile, report

NINE = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def passage(number: int, came: float, started: float | None, ended: float | None) -> Passage:
    moments = [None if at is None else NINE + timedelta(seconds=at) for at in (came, started, ended)]
    state = "queued" if started is None else "running" if ended is None else "succeeded"
    submitted = moments[0]
    assert submitted is not None
    return Passage(f"run_{number}", state, submitted, moments[1], moments[2])


def part(name: str, passages: list[Passage], weight: float = 1.0, extra: tuple[str, ...] = ()) -> Part:
    return Part(name, weight, 10, [*(one.run_id for one in passages), *extra], passages)


def test_a_burst_behind_which_nobody_waits_is_perfectly_fair_and_keeps_the_slots_busy() -> None:
    # Two slots: the quiet tenant has one whenever it asks, the noisy one uses the rest.
    noisy = part("noisy", [passage(n, 10, 10 + n, 11 + n) for n in range(20)])
    quiet = part("quiet", [passage(100 + n, 3 * n, 3 * n + 0.1, 3 * n + 1.1) for n in range(10)])
    found = report([noisy, quiet], "noisy", slots=2, work_s=1, sla_s=5, wall_s=31)
    assert found["jain"] == pytest.approx(1, abs=0.001)
    assert 0.6 < found["slots_busy"] < 0.7
    assert found["tenants"]["quiet"]["sla_missed"] == 0
    assert found["tenants"]["quiet"]["calm_wait_p95_s"] == found["tenants"]["quiet"]["wait_p95_s"] == 0.1
    assert found["tenants"]["noisy"]["sla_missed"] == 15
    assert "calm_wait_p95_s" not in found["tenants"]["noisy"]
    assert found["lost"] == 0


def test_a_queue_that_serves_the_burst_first_is_told_as_unfair() -> None:
    noisy = part("noisy", [passage(n, 0, n, 1 + n) for n in range(20)])
    starved = part("starved", [passage(100 + n, n, 20 + n, 21 + n) for n in range(10)])
    found = report([noisy, starved], "noisy", slots=1, work_s=1, sla_s=5, wall_s=31)
    assert found["jain"] < 0.8
    assert found["tenants"]["starved"]["sla_missed"] == 10


def test_what_the_api_does_not_know_is_lost_and_what_has_not_ended_is_unfinished_and_late() -> None:
    noisy = part("noisy", [passage(0, 0, 1, 2), passage(1, 0, 1, None), passage(2, 0, None, None)], extra=("run_x",))
    found = report([noisy], "noisy", slots=2, work_s=1, sla_s=5, wall_s=3)
    told = found["tenants"]["noisy"]
    assert (told["submitted"], told["succeeded"], told["unfinished"], told["lost"]) == (4, 1, 2, 1)
    assert (told["sla_missed"], found["lost"]) == (2, 1)


def test_a_burst_of_which_nothing_started_says_so_instead_of_dividing_by_nothing() -> None:
    found = report([part("noisy", [passage(0, 0, None, None)])], "noisy", slots=2, work_s=1, sla_s=5, wall_s=3)
    assert (found["jain"], found["slots_busy"], found["tenants"]["noisy"]["wait_p95_s"]) == (None, None, None)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
