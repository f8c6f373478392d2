"""Who is let into the queue, who is not, and what they are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import Draining, Overloaded, QuotaExceeded
from core.runs.admission import (
    FEW_QUEUED,
    LONGEST_RETRY_S,
    SHED_AT,
    Limit,
    Load,
    judge,
    refused,
    retry_after_s,
    seconds_to_midnight,
)
from core.runs.model import Lane
from core.tenancy import Policy

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
POLICY = Policy(daily_runs=1_000, queue_depth=500, timezone="America/New_York")

loads = st.builds(
    Load,
    admitted_today=st.integers(0, 1_200),
    tenant_queued=st.integers(0, 600),
    platform_queued=st.integers(0, 1_200),
    platform_limit=st.integers(1, 1_000),
    draining=st.booleans(),
)
zones = st.sampled_from(sorted(available_timezones() - {"localtime"}))
moments = st.floats(0, 15 * 366 * 86_400).map(lambda s: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s))


CALM = Load(admitted_today=1, tenant_queued=0, platform_queued=0, platform_limit=1_000)


def load(**given: Any) -> Load:
    return replace(CALM, **given)


@given(loads, st.integers(1, 700))
def test_no_lane_is_refused_before_a_lower_one(load: Load, count: int) -> None:
    urgent, normal, background = (judge(POLICY, lane, count, load) for lane in Lane)
    assert urgent is None or normal is not None
    assert normal is None or background is not None


@given(loads, st.integers(1, 700), st.sampled_from(Lane))
def test_what_is_admitted_exceeds_no_limit_and_a_refusal_names_one_that_is_exceeded(
    load: Load, count: int, lane: Lane
) -> None:
    found = judge(POLICY, lane, count, load)
    exceeded = {
        Limit.DRAINING: load.draining,
        Limit.DAILY_RUNS: load.admitted_today > POLICY.daily_runs,
        Limit.QUEUE_DEPTH: load.tenant_queued + count > POLICY.queue_depth,
    }
    if found is None:
        assert not any(exceeded.values())
        assert load.platform_queued + count <= load.platform_limit
    elif found.limit in exceeded:
        assert exceeded[found.limit]
    else:
        assert load.platform_queued + count > SHED_AT[lane] * load.platform_limit - 1
        assert found.excess > 0


@pytest.mark.parametrize(("lane", "taken"), [(Lane.URGENT, 1_000), (Lane.NORMAL, 850), (Lane.BACKGROUND, 700)])
def test_each_lane_is_shed_at_its_own_depth(lane: Lane, taken: int) -> None:
    busy = 2 * FEW_QUEUED
    assert judge(POLICY, lane, 1, load(tenant_queued=busy, platform_queued=taken - 1)) is None
    assert judge(POLICY, lane, 1, load(tenant_queued=busy, platform_queued=taken)) is not None


def test_a_tenant_that_did_not_fill_the_queues_is_taken_until_they_are_full() -> None:
    assert judge(POLICY, Lane.NORMAL, 1, load(platform_queued=999)) is None
    assert judge(POLICY, Lane.NORMAL, 2, load(platform_queued=999)) is not None
    assert judge(POLICY, Lane.BACKGROUND, 1, load(platform_queued=999)) is not None


def test_the_time_to_wait_is_that_in_which_the_excess_leaves() -> None:
    assert retry_after_s(300, 10.0) == 30.0
    assert retry_after_s(1, 1_000.0) == 1.0
    assert retry_after_s(1_000_000, 0.1) == retry_after_s(1, 0.0) == LONGEST_RETRY_S


@pytest.mark.parametrize(
    ("given", "kind", "words", "after_s"),
    [
        ({"draining": True}, Draining, "what is queued goes on", 60),
        ({"admitted_today": 1_004}, QuotaExceeded, r"room for 6 more runs today.*midnight", 17 * 3600),
        ({"tenant_queued": 495}, QuotaExceeded, r"room for 5 more runs now.*495 are.*when some have started", 2.5),
        ({"platform_queued": 940, "tenant_queued": 450}, Overloaded, r"lane normal.*higher lane", 50),
    ],
)
def test_a_refusal_says_what_to_do_and_when(
    given: dict[str, Any], kind: type[Exception], words: str, after_s: float
) -> None:
    stands = load(**given)
    found = judge(POLICY, Lane.NORMAL, 10, stands)
    assert found is not None
    error = refused(found, POLICY, Lane.NORMAL, 10, stands, NOON, left_per_s=2.0)
    assert type(error) is kind
    assert error.retry_after_s == after_s
    with pytest.raises(kind, match=words):
        raise error


def test_a_batch_that_can_never_fit_is_told_so() -> None:
    stands = load()
    found = judge(POLICY, Lane.NORMAL, 501, stands)
    assert found is not None
    with pytest.raises(QuotaExceeded, match="more than can ever be taken; submit at most 500") as told:
        raise refused(found, POLICY, Lane.NORMAL, 501, stands, NOON, 2.0)
    assert (told.value.retryable, told.value.retry_after_s) == (False, None), "whoever waited would wait in vain"


@given(moments, zones)
@example(datetime(2026, 3, 8, 5, 30, tzinfo=UTC), "America/New_York")  # a day of 23 hours
@example(datetime(2026, 11, 1, 4, 30, tzinfo=UTC), "America/New_York")  # a day of 25 hours
@example(datetime(2024, 4, 25, 12, 0, tzinfo=UTC), "Africa/Cairo")  # the next midnight does not exist
@example(datetime(2026, 3, 7, 12, 0, tzinfo=UTC), "America/Havana")
def test_the_quota_begins_anew_exactly_when_the_local_date_changes(now: datetime, timezone: str) -> None:
    zone = ZoneInfo(timezone)
    left_s = seconds_to_midnight(now, timezone)
    today = now.astimezone(zone).date()
    midnight = now + timedelta(seconds=left_s)
    assert 0 < left_s <= 25 * 3600
    assert (midnight + timedelta(microseconds=1)).astimezone(zone).date() > today
    assert (midnight - timedelta(milliseconds=1)).astimezone(zone).date() == today


@given(moments, zones, st.floats(-7_200, 7_200))
def test_a_clock_that_jumps_moves_the_reset_by_as_much_or_into_another_day(
    now: datetime, timezone: str, jump_s: float
) -> None:
    jumped = now + timedelta(seconds=jump_s)
    zone = ZoneInfo(timezone)
    before, after = seconds_to_midnight(now, timezone), seconds_to_midnight(jumped, timezone)
    same_day = now.astimezone(zone).date() == jumped.astimezone(zone).date()
    assert after > 0
    assert not same_day or abs(after - (before - jump_s)) < 1e-3
