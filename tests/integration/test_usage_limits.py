"""What a run and a month may spend: which limit holds, from when, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.clock import FakeClock
from core.errors import BudgetExceeded
from core.settings import Settings
from core.tenancy import Policy, Role
from tests.fixtures.work import Work, work_in

MONTH = 1_000
POLICY = Policy(budget_month_microusd=MONTH, budget_run_microusd=400)


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


async def test_a_runs_limit_is_the_budget_it_was_submitted_with_whoever_reserves_first(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(budget_run_microusd=500))
    (run,) = await work.submit(ctx, 1)
    richer = replace(ctx, policy=Policy(budget_run_microusd=2_000_000))
    with pytest.raises(BudgetExceeded) as refused:
        await work.usage.reserve(richer, "model-call", 501, run_id=run.run_id)
    assert refused.value.details["account"] == "run"
    await work.usage.reserve(richer, "model-call", 500, run_id=run.run_id)


async def test_a_month_that_gets_more_money_takes_runs_again_at_once(work: Work) -> None:
    ctx = await work.tenant("bank", POLICY)
    await work.usage.reserve(ctx, "everything", MONTH)
    with pytest.raises(BudgetExceeded):
        await work.submit(ctx, 1)
    await work.tenants.change_policy(await work.operator(), ctx.tenant_id, Policy(budget_month_microusd=2 * MONTH))
    richer = await work.context("bank", Role.MEMBER)
    assert (await work.usage.balance(richer)).left_microusd == MONTH
    assert len(await work.submit(richer, 1)) == 1


async def test_a_promise_belongs_to_the_month_in_which_it_was_made(work: Work) -> None:
    ctx = await work.tenant("bank", replace_zone(POLICY, "America/New_York"))
    work.clock.advance((datetime(2026, 2, 1, 4, 59, tzinfo=UTC) - work.clock.now()).total_seconds())
    await work.usage.reserve(ctx, "late", 900)
    work.clock.advance(120)  # past midnight in New York
    assert (await work.usage.balance(ctx)).left_microusd == MONTH
    await work.usage.reserve(ctx, "early", 1_000)
    assert await work.usage.settle(ctx, "late", 800)
    balance = await work.usage.balance(ctx)
    assert (balance.reserved_microusd, balance.spent_microusd) == (1_000, 0)


def replace_zone(policy: Policy, zone: str) -> Policy:
    return policy.model_copy(update={"timezone": zone})
