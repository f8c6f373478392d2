"""Fairness as a number: what Jain's index says of known allocations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.queue.shares import jain
from ops_dashboard.measures import Service, fairness, ratio

SHARES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50)


def test_equal_service_is_one_and_a_monopoly_is_one_nth() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([1.0, 2.0]) == pytest.approx(9 / 10)
    assert jain([]) is None
    assert jain([0.0, 0.0]) is None


@given(SHARES, st.floats(0.001, 1e3))
def test_the_index_lies_between_one_nth_and_one_and_ignores_the_scale(shares: list[float], scale: float) -> None:
    index = jain(shares)
    assert index is not None
    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9
    assert jain([share * scale for share in shares]) == pytest.approx(index)


def test_service_is_measured_per_unit_of_weight() -> None:
    served = [Service("bank", 500.0, 5.0, 60.0), Service("union", 200.0, 2.0, 60.0), Service("shop", 100.0, 1.0, 60.0)]
    assert fairness(served).overall == pytest.approx(1.0)


def test_only_tenants_with_about_the_longest_backlog_contend_and_it_takes_two() -> None:
    bank, union = Service("bank", 300.0, 1.0, 30.0), Service("union", 100.0, 1.0, 15.0)
    shop = Service("shop", 3.0, 1.0, 14.9)
    found = fairness([bank, union, shop])
    assert (found.tenants, found.contenders) == (3, 2)
    assert found.contending == pytest.approx(400**2 / (2 * (300**2 + 100**2)))
    assert found.overall == pytest.approx(403**2 / (3 * (300**2 + 100**2 + 3**2)))
    assert fairness([bank, shop]).contending is None
    assert fairness([Service("idle", 5.0, 1.0, 0.0), Service("quiet", 5.0, 1.0, 0.0)]).contenders == 0


def test_nothing_of_nothing_has_no_share() -> None:
    assert ratio(1, 0) is None
    assert ratio(1, 4) == 0.25
