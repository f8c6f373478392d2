"""The situations that the fair queue is for, in simulated time: what a start costs on a machine is not in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.queue.rows import Terms
from core.queue.simulator import Arrival, Outcome, Scenario, quantile, simulate
from tests.benchmarks import scenarios
from tests.benchmarks.scenarios import MONDAY_SLA_S, NOISY, STEADY


def quiet(scenario: Scenario) -> set[str]:
    """The tenants that flood nobody."""
    return set(scenario.terms) - {NOISY, STEADY}


def by_arrival(scenario: Scenario) -> Outcome:
    """What first come, first served makes of a scenario: everything is of one tenant with one user."""
    alike = tuple(replace(one, tenant="all", user="") for one in scenario.arrivals)
    outcome = simulate(replace(scenario, terms={"all": Terms()}, arrivals=alike))
    uses = tuple(replace(use, arrival=scenario.arrivals[int(use.start.run_id)]) for use in outcome.uses)
    return replace(outcome, scenario=scenario, uses=uses)


def test_backlogged_tenants_get_seconds_by_weight_in_every_minute() -> None:
    scenario = scenarios.weighted_shares(1, minutes=2)
    outcome = simulate(scenario)
    index, *minutes = (outcome.fairness(a, b) or 0.0 for a, b in ((0, scenario.ends_s), (0, 60), (60, 120)))
    assert index >= 0.999
    assert min(minutes) >= 0.98
    assert outcome.busy() >= 0.94


def test_quiet_tenants_do_not_notice_a_noisy_neighbour() -> None:
    scenario = scenarios.noisy_neighbour(1, ends_s=120)
    outcome = simulate(scenario)
    assert quantile(outcome.waits_s(quiet(scenario)), 0.99) <= 0.15
    assert outcome.busy() >= 0.95


def test_runs_of_34_seconds_neither_delay_quiet_tenants_nor_buy_more_than_their_weight() -> None:
    scenario = scenarios.long_against_short(1)
    outcome = simulate(scenario)
    served = outcome.served_s(0, scenario.ends_s)
    assert quantile(outcome.waits_s(quiet(scenario)), 0.99) <= 0.5
    assert served[NOISY] / (served[NOISY] + served[STEADY]) == pytest.approx(0.5, abs=0.02)


def test_on_a_monday_morning_nobody_else_misses_the_sla() -> None:
    scenario = scenarios.monday_morning(1)
    outcome, calm = simulate(scenario), simulate(scenario.without(NOISY))
    others = quiet(scenario)
    assert outcome.late(MONDAY_SLA_S) & others == set()
    p95_s = quantile(outcome.latencies_s(others), 0.95)
    assert p95_s == pytest.approx(quantile(calm.latencies_s(others), 0.95), rel=0.01)
    assert len(by_arrival(scenario).late(MONDAY_SLA_S) & others) >= 47


def test_a_scenario_played_faster_is_the_same_scenario() -> None:
    scenario = scenarios.monday_morning(2, hours=0.5)
    waits = [simulate(one).waits_s() for one in (scenario, scenario.compressed(8))]
    assert waits[0] == pytest.approx([8 * wait for wait in waits[1]], abs=1e-3)


def test_seconds_are_counted_where_they_were_served() -> None:
    arrivals = (Arrival(0, "ant", 4), Arrival(1, "bee", 4))
    outcome = simulate(Scenario("one slot", {"ant": Terms(), "bee": Terms()}, arrivals, (1,), 10))
    assert outcome.waits_s() == [0, 3]
    assert outcome.waits_s({"bee"}) == [3]
    assert outcome.latencies_s() == [4, 7]
    assert outcome.served_s(2, 5) == {"ant": 2, "bee": 1}
    assert outcome.busy() == pytest.approx(0.8)
    assert outcome.late(5) == {"bee"}
    assert outcome.left_queued == 0


def test_what_did_not_end_in_time_is_late_and_counts_as_far_as_it_got() -> None:
    arrivals = (Arrival(0, "ant", 8), Arrival(0, "ant", 8))
    outcome = simulate(Scenario("one slot", {"ant": Terms()}, arrivals, (1,), 10))
    assert outcome.latencies_s() == [8]
    assert outcome.served_s(0, 10) == {"ant": 10}
    assert outcome.late(9) == {"ant"}


def test_a_quantile_is_a_value_that_occurred() -> None:
    assert [quantile([3, 1, 2, 4], share) for share in (0.0, 0.5, 0.75, 0.99)] == [1, 2, 3, 4]
    assert quantile([], 0.99) == 0
