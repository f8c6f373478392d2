"""Fairness as a number: what Jain's index says of known allocations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.queue.shares import jain
from ops_dashboard.measures import Service, correlations, fairness, ratio

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


def over_time(**values: Sequence[float]) -> pd.DataFrame:
    """Long rows of one value per tenant and minute."""
    start = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    return pd.DataFrame(
        [
            (tenant, start + timedelta(minutes=minute), value)
            for tenant, row in values.items()
            for minute, value in enumerate(row)
        ],
        columns=["tenant_id", "bucket", "value"],
    )


def test_a_spike_that_others_feel_is_told_from_one_that_they_do_not() -> None:
    depth = over_time(bank=[0, 0, 0, 0, 0, 200, 180, 150, 90, 0, 0, 0], shop=[3] * 12).rename(
        columns={"value": "queued"}
    )
    waits = over_time(
        union=[0.1, 0.2, 0.1, 0.2, 4.0, 9.0, 8.0, 7.0, 0.2, 0.1, 0.2, 0.1],
        shop=[0.2, 0.1] * 6,
        bank=[0.1] * 12,
    ).rename(columns={"value": "wait_p95_s"})
    found = correlations(depth, waits)
    assert [(pair.of, pair.on, pair.moved) for pair in found] == [("bank", "union", True), ("bank", "shop", False)]
    assert found[0].r > 0.5
    assert (found[0].calm_s, found[0].spike_s) == pytest.approx((0.15, 7.5))
    assert found[0].points == 12
    assert abs(found[1].r) < 0.5


def test_without_a_spike_or_with_too_few_moments_nothing_is_said() -> None:
    waits = over_time(union=[0.1, 5.0] * 6).rename(columns={"value": "wait_p95_s"})
    for queue in ([9.0] * 11 + [0.0], [50.0] * 12):  # too short for a spike; no calm to compare it with
        assert correlations(over_time(bank=queue).rename(columns={"value": "queued"}), waits) == []
    depth = over_time(bank=[0.0] * 8 + [50.0] * 4).rename(columns={"value": "queued"})
    assert correlations(depth, waits.head(7)) == []
    assert correlations(depth, waits.head(0)) == []
    (still,) = correlations(depth, waits.assign(wait_p95_s=0.0))
    assert (still.r, still.moved) == (0.0, False)
