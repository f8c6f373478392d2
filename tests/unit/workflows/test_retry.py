"""How long a step waits before it is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.workflows import Retry


@given(st.floats(0.01, 100), st.floats(0.01, 1_000), st.integers(1, 10_000))
def test_the_longest_pause_doubles_up_to_its_limit(initial_s: float, max_s: float, failures: int) -> None:
    pause_s = Retry(5, initial_s, max_s).pause_s(failures)
    assert 0 <= pause_s <= min(max_s, initial_s * 2 ** min(failures - 1, 64))


def test_many_that_fail_together_come_back_spread_over_the_whole_pause() -> None:
    retry = Retry(5, initial_s=1, max_s=8)
    tenths = {int(10 * retry.pause_s(4) / 8) for _ in range(1_000)}  # one of a thousand misses a tenth: 1e-45
    assert tenths == set(range(10))
