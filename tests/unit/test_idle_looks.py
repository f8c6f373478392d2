"""When processes with nothing to do look into the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from core.queue.model import IDLE_LOOK_S, idle_look_s

NEON_SLEEPS_AFTER_S = 300
moments = st.integers(0, 10**15).map(lambda us: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))


@given(moments)
def test_all_processes_look_at_the_quarters_of_an_hour_whenever_they_began(now: datetime) -> None:
    look_s = (now + timedelta(seconds=idle_look_s(now))).timestamp()
    assert min(look_s % IDLE_LOOK_S, -look_s % IDLE_LOOK_S) < 0.001


@given(moments)
def test_between_two_looks_a_serverless_database_falls_asleep(now: datetime) -> None:
    first_s = idle_look_s(now)
    look = now + timedelta(seconds=first_s)
    assert 60 <= first_s <= IDLE_LOOK_S + 60
    assert idle_look_s(look) > 2 * NEON_SLEEPS_AFTER_S


def test_a_process_that_wakes_a_moment_early_does_not_look_twice() -> None:
    early = datetime(2026, 3, 2, 9, 59, 59, 990_000, tzinfo=UTC)
    assert idle_look_s(early) > IDLE_LOOK_S
