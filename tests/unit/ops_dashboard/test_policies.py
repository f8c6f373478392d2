"""A policy as a form: units, bounds, and what a change changes."""

from __future__ import annotations

import math
import re

import pytest

from core.errors import InvalidInput
from core.tenancy import Policy, RateLimit
from ops_dashboard.policies import (
    BUDGETS,
    INSIDE,
    QUOTAS,
    SERVICE_LEVELS,
    changed,
    differences,
    rate_limits,
    shown,
    stored,
    workflow_caps,
)

POLICY = Policy(
    weight=2.5,
    concurrency_cap=10,
    budget_run_microusd=500_000,
    rate_limits={"credit-bureau": RateLimit(limit=50, window_s=3600)},
)


def test_what_is_shown_and_stored_again_is_what_was_there() -> None:
    fields = {
        field.name: stored(field, shown(POLICY, field)) for field in (*QUOTAS, *INSIDE, *BUDGETS, *SERVICE_LEVELS)
    }
    assert fields["budget_run_microusd"] == 500_000
    assert changed(POLICY, fields) == POLICY
    assert differences(POLICY, changed(POLICY, fields)) == []


def test_money_is_written_in_dollars_and_stored_to_the_micro_dollar() -> None:
    run = next(field for field in BUDGETS if field.name == "budget_run_microusd")
    assert shown(POLICY, run) == 0.5
    assert stored(run, 0.29) == 290_000


def test_every_difference_is_named_rate_limits_one_by_one() -> None:
    limits = rate_limits(
        [{"name": "credit-bureau", "limit": 500, "window_s": 3600.0}, {"name": "x", "limit": 1, "window_s": 1}]
    )
    after = changed(POLICY, {"concurrency_cap": 20, "rate_limits": limits, "denied_tools": ["start_runs"]})
    assert differences(POLICY, after) == [
        ("Cap (runs at a time)", "10", "20"),
        ("rate limit credit-bureau", "50 in 3600 s", "500 in 3600 s"),
        ("denied tools", "–", "start_runs"),
        ("rate limit x", "–", "1 in 1 s"),
    ]


def test_caps_inside_the_organisation_may_be_empty_and_are_named_one_by_one() -> None:
    (user_cap,) = INSIDE
    assert (shown(POLICY, user_cap), stored(user_cap, None), stored(user_cap, 4)) == (None, None, 4)
    caps = workflow_caps([{"workflow": "loan-approval", "cap": 5.0}, {"workflow": "loan-recheck", "cap": 0}])
    after = changed(POLICY, {"user_cap": 4, "workflow_caps": caps})
    assert differences(POLICY, after) == [
        ("Runs of one user at a time", "–", "4"),
        ("cap of loan-approval", "–", "5"),
        ("cap of loan-recheck", "–", "0"),
    ]
    assert differences(after, POLICY)[0] == ("Runs of one user at a time", "4", "–")
    for row in ({"workflow": "", "cap": 1}, {"workflow": "x", "cap": None}, {"workflow": "loan-approval", "cap": 1}):
        with pytest.raises(InvalidInput, match="cap"):
            workflow_caps([{"workflow": "loan-approval", "cap": 5}, row])


@pytest.mark.parametrize("name", ["daily_runs", "user_cap"])
@pytest.mark.parametrize("written", [1.5, math.inf])
def test_what_is_no_whole_number_is_refused_and_not_rounded(name: str, written: float) -> None:
    field = next(field for field in (*QUOTAS, *INSIDE) if field.name == name)
    with pytest.raises(InvalidInput, match=f"^{re.escape(field.label)}: a whole number$"):
        changed(POLICY, {name: stored(field, written)})
    assert stored(field, 100_000) == 100_000


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"weight": 0}, "^Weight: at least 0.001$"),
        ({"concurrency_cap": 10**9}, "^Cap \\(runs at a time\\): at most 100,000$"),
        ({"budget_run_microusd": -1, "run_sla_s": 10**9}, "USD: at least 0; SLA of a run, hours: at most 8,784$"),
        ({"budget_month_microusd": 10**16}, "^Budget of a month, USD: at most 1,000,000,000$"),
        ({"rate_limits": {"x": {"limit": 0, "window_s": 1}}}, "^rate limits x limit: at least 1$"),
        ({"budget_cheaper_at": 1.0, "budget_skip_at": 0.5}, "^Policy: The ladder ascends: “A cheaper model from” <= "),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_name_that_the_form_gives_it(
    fields: dict[str, object], label: str
) -> None:
    with pytest.raises(InvalidInput, match=label):
        changed(POLICY, fields)


@pytest.mark.parametrize(
    "row",
    [
        {"name": " ", "limit": 1, "window_s": 1},
        {"name": "x", "limit": None, "window_s": 1},
        {"name": "x", "limit": 1, "window_s": float("nan")},
        {"name": "credit-bureau", "limit": 1, "window_s": 1},
    ],
)
def test_a_rate_limit_that_is_incomplete_or_named_twice_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="rate limit"):
        rate_limits([{"name": "credit-bureau", "limit": 5, "window_s": 60}, row])
