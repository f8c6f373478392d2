"""The pace of open claims: every claim keeps the next one away, and never for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.queue.pace import Pace

SLOTS, RESERVED = 20, 1
MEAN_S = 0.5
SPACE_US = 22_500  # nine tenths of the mean time between two ends
LONGEST_US = 128_000
NOW = 10_000_000


def test_a_claim_into_the_headroom_keeps_the_next_open_one_away_as_an_open_one_does() -> None:
    pace = Pace(MEAN_S)
    assert pace.opens_us(1, SLOTS, RESERVED, NOW) <= NOW
    for number in (1, 2, 3):
        pace.claimed(MEAN_S, SLOTS, NOW)
        assert pace.opens_us(1, SLOTS, RESERVED, NOW) == NOW + number * SPACE_US


def test_slots_beyond_the_headroom_are_open_a_little_earlier() -> None:
    pace = Pace(MEAN_S, NOW)
    assert pace.opens_us(1, SLOTS, RESERVED, NOW) == NOW
    assert pace.opens_us(2, SLOTS, RESERVED, NOW) == NOW - 100_000


@given(
    claims=st.lists(
        st.tuples(st.integers(-(10**9), 10**9), st.floats(0.001, 0.7), st.integers(20, 400)), min_size=1, max_size=60
    )
)
def test_nothing_puts_an_open_claim_off_for_longer_though_clocks_jump(claims: list[tuple[int, float, int]]) -> None:
    pace, now = Pace(MEAN_S), 10**12
    for step_us, charge_s, slots in claims:
        now += step_us
        assert pace.opens_us(1, slots, RESERVED, now) <= now + LONGEST_US
        pace.claimed(charge_s, slots, now)
        assert now < pace.opens_us(1, slots, RESERVED, now) <= now + LONGEST_US
