"""Who decides about which of a tenant's rules, and what two changes at once become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.clock import FakeClock
from core.errors import Conflict, Forbidden
from core.ids import TenantId
from core.settings import Settings
from core.tenancy import Policy, RateLimit, Tier
from core.tenants.service import TenantService
from tests.fixtures.work import Work, work_in

BANK = TenantId("bank")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


# What an admin decides about their own organisation; everything else is agreed with the operator.
ADMINS = {
    "allowed_tools": ("search",),
    "budget_ask_at": 0.7,
    "budget_cheaper_at": 0.5,
    "budget_skip_at": 0.6,
    "denied_tools": ("search",),
    "review_sla_s": 60,
    "reviewer_pool": "dedicated",
    "run_sla_s": 60,
    "timezone": "Europe/Berlin",
    "user_cap": 2,
    "workflow_caps": {"loan-approval": 2},
}
OPERATORS: dict[str, Any] = {
    "audit_retention_days": 1,
    "blob_bytes": 1,
    "blob_retention_days": 1,
    "budget_class": "gold",
    "budget_month_microusd": 10**12,
    "budget_run_microusd": 10**9,
    "burst_credit_s": 600.0,
    "burst_slots": 10,
    "concurrency_cap": 1_000,
    "daily_runs": 10**6,
    "max_duration_s": 366 * 86_400,
    "max_recoveries": 100,
    "open_runs": 10**6,
    "max_steps": 10_000,
    "model_tier": "large",
    "queue_depth": 10**6,
    "rate_limits": {"credit-bureau": RateLimit(limit=1_000, window_s=1)},
    "regions": ("eu-west-1",),
    "tier": Tier.ENTERPRISE,
    "weight": 100.0,
}


async def test_an_admin_changes_what_is_theirs_and_neither_weight_nor_cap_nor_budget(work: Work) -> None:
    assert set(ADMINS) | set(OPERATORS) == set(Policy.model_fields), "say who decides about a new rule"
    admin, operator = await work.people.admin("bank"), await work.operator()
    for name, value in OPERATORS.items():
        with pytest.raises(Forbidden) as error:
            await work.tenants.change_policy(admin, BANK, Policy.model_validate({name: value}))
        assert error.value.details["fields"] == [name]
    own = Policy.model_validate(ADMINS)
    assert await work.tenants.change_policy(admin, BANK, own) == 2
    assert (await work.tenants.tenant(BANK)).policy == own
    assert await work.tenants.change_policy(operator, BANK, Policy.model_validate(OPERATORS)) == 3
    for forbidden in (
        work.tenants.pause(admin, BANK, True),
        work.tenants.create_tenant(admin, TenantId("mine"), "Mine", "mine", "us-east-1", Policy()),
    ):
        with pytest.raises(Forbidden):
            await forbidden
    changes = [e for e in await work.audit.recent(admin) if e.act == "policy.change"]
    assert [(e.actor, e.after["weight"]) for e in changes] == [(operator.actor, 100.0), (admin.actor, 1.0)]


async def test_an_admin_who_looked_a_moment_ago_does_not_undo_what_the_operator_did_since(
    work: Work, settings: Settings
) -> None:
    admin, operator = await work.people.admin("bank"), await work.operator()
    elsewhere = TenantService(work.db, work.bus, work.audit, work.clock, region=settings.region, region_urls={})
    seen = (await work.tenants.tenant(BANK)).policy
    await elsewhere.change_policy(operator, BANK, seen.model_copy(update={"concurrency_cap": 1}))
    with pytest.raises(Forbidden):
        await work.tenants.change_policy(admin, BANK, seen.model_copy(update={"run_sla_s": 60}))
    work.clock.advance(1)
    assert (await work.tenants.tenant(BANK)).policy.concurrency_cap == 1


async def test_of_two_changes_of_a_policy_made_at_once_neither_is_lost_unseen(work: Work) -> None:
    operator = await work.operator()
    await work.people.admin("bank")
    changes = [work.tenants.change_policy(operator, BANK, Policy(concurrency_cap=10 + n)) for n in range(6)]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    assert all(isinstance(answer, int | Conflict) for answer in answers)
    versions = sorted(answer for answer in answers if isinstance(answer, int))
    assert versions == list(range(2, 2 + len(versions)))
