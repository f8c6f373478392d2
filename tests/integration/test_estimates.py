"""Estimates that are learned from what steps cost, and what a higher limit wakes."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from core.clock import FakeClock
from core.errors import BudgetExceeded
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, RunState
from core.settings import Settings
from core.tenancy import Policy, RateLimit, TenantContext
from core.usage.model import DEFAULT_ESTIMATE_MICROUSD, LEAST_ESTIMATE_MICROUSD
from tests.fixtures.work import Work, work_in

BUDGET = 1_000_000
POLICY = Policy(concurrency_cap=1_000, budget_run_microusd=BUDGET)
SEED = 20_260_105


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


async def executing(work: Work, ctx: TenantContext, count: int = 1) -> list[Executing]:
    """Runs that a worker executes."""
    await work.submit(ctx, count)
    return [await work.executing(claim) for claim in await work.claim("w", count)]


async def perform(work: Work, on: Executing, step: int, estimate: int, cost: int) -> None:
    """One attempt of the step ``ask``."""
    attempt = await work.execution.begin_step(on, step, "ask", "agent", estimate)
    await work.execution.finish_step(on, step, attempt, None, cost_microusd=cost)


async def test_a_step_is_estimated_at_what_it_has_cost_and_says_how_often_that_was_too_little(work: Work) -> None:
    bank = await work.tenant("bank", POLICY)
    (on,) = await executing(work, bank)
    (run,) = (await work.runs.list(bank))[0]
    rng, costs, exceeded, over, learned = random.Random(SEED), list[int](), 0, 0, 0
    for step in range(1, 81):
        estimate, cost = rng.randrange(1, 2_000), rng.randrange(0, 2_500)
        await perform(work, on, step, estimate, cost)
        costs.append(cost)
        exceeded, over = exceeded + (cost > estimate), over + max(0, cost - estimate)
        known = sorted(costs[-64:])
        learned = max(LEAST_ESTIMATE_MICROUSD, known[math.ceil(0.95 * len(known)) - 1])
        expected = learned if step >= 5 else DEFAULT_ESTIMATE_MICROUSD
        assert await work.usage.estimate(bank, run.workflow, "ask") == expected, step
    (row,) = await work.usage.step_costs(bank)
    assert (row.settled, row.exceeded, row.overshoot_microusd) == (80, exceeded, over)
    assert row.exceeded_share == exceeded / 80
    assert row.mean_overshoot_microusd == round(over / exceeded)

    # Whoever has not run it learns from those who have, until they have run it often enough themselves.
    shop = await work.tenant("shop", POLICY)
    assert await work.usage.step_costs(shop) == []
    assert await work.usage.estimate(shop, run.workflow, "ask") == learned
    assert await work.usage.estimate(shop, run.workflow, "another") == DEFAULT_ESTIMATE_MICROUSD
    (theirs,) = await executing(work, shop)
    for step in range(1, 6):
        await perform(work, theirs, step, 10, 0)
    assert await work.usage.estimate(shop, run.workflow, "ask") == LEAST_ESTIMATE_MICROUSD
    everybody = await work.usage.step_costs(await work.operator())
    assert [(each.tenant_id, each.settled) for each in everybody] == [("bank", 80), ("shop", 5)]


async def test_what_is_reserved_on_top_is_settled_with_the_attempt_and_never_exceeds_the_run(work: Work) -> None:
    bank = await work.tenant("bank", POLICY)
    (on,) = await executing(work, bank)
    attempt = await work.execution.begin_step(on, 1, "ask", "agent", 100_000)
    for _ in range(2):
        await work.execution.reserve_more(on, 1, attempt, 1, 200_000)
    balance = await work.usage.balance(bank, on.run_id)
    assert balance.reserved_microusd == 300_000, "the same part again reserves nothing"
    with pytest.raises(BudgetExceeded) as refused:
        await work.execution.reserve_more(on, 1, attempt, 2, 700_001)
    assert refused.value.details["account"] == "run"
    await work.execution.reserve_more(on, 1, attempt, 2, 700_000)
    await work.execution.fail_step(on, 1, attempt, {"code": "x", "message": "x"}, cost_microusd=250_000)
    for account in (on.run_id, None):
        balance = await work.usage.balance(bank, account)
        assert (balance.reserved_microusd, balance.spent_microusd) == (0, 250_000)
    assert await work.usage.step_costs(bank) == [], "a failure says nothing about what success costs"


async def test_runs_of_one_tenant_that_settle_at_once_lose_no_cost(work: Work) -> None:
    bank = await work.tenant("bank", POLICY)
    runs = await executing(work, bank, 20)
    await asyncio.gather(*(perform(work, on, 1, 100, 10 * number) for number, on in enumerate(runs, 1)))
    (row,) = await work.usage.step_costs(bank)
    assert (row.settled, row.p95_microusd, row.exceeded, row.overshoot_microusd) == (20, 190, 10, 550)


async def parked(work: Work, on: Executing, cause: Cause, key: str, after_s: float) -> None:
    """A run that waits for this until then."""
    wake_at = work.clock.now() + timedelta(seconds=after_s)
    await work.execution.arm_wait(on, Wait(1, key, cause, key=key, wake_at=wake_at))
    assert await work.execution.park(on) is RunState.WAITING


async def test_a_higher_limit_wakes_what_is_parked_on_it_as_fast_as_it_allows_and_nothing_else(
    work: Work, owner_dsn: str
) -> None:
    before = POLICY.model_copy(
        update={"rate_limits": {name: RateLimit(limit=1, window_s=3_600) for name in ("bureau", "other")}}
    )
    bank, shop = await work.tenant("bank", before), await work.tenant("shop", before)
    for ctx in (bank, shop):
        runs = await executing(work, ctx, 7)
        await parked(work, runs[0], Cause.BUDGET, "month", 86_400)
        await parked(work, runs[1], Cause.RATE, "other", 3_600)
        for number, on in enumerate(runs[2:], 1):
            await parked(work, on, Cause.RATE, "bureau", 3_600 * number)
    assert await work.queue.wake_due() == []

    higher = before.rate_limits | {
        "bureau": RateLimit(limit=2, window_s=60),
        "other": RateLimit(limit=1, window_s=7_200),
    }
    raised = {"budget_month_microusd": before.budget_month_microusd + 1, "rate_limits": higher}
    await work.tenants.change_policy(await work.operator(), bank.tenant_id, before.model_copy(update=raised))
    assert await work.queue.wake_due() == [], "a process may still go by the old policy"
    woken = []
    for seconds in (1.5, 60, 60):
        work.clock.advance(seconds)
        woken.append(sorted(wait.reason for wait in await work.queue.wake_due()))
    assert woken == [["budget", "rate", "rate"], ["rate", "rate"], ["rate"]]
    owner = await asyncpg.connect(owner_dsn)
    left = await owner.fetch("select tenant_id, key, count(*) from waits group by 1, 2 order by 1, 2")
    await owner.close()
    assert [tuple(row) for row in left] == [
        ("bank", "other", 1),
        ("shop", "bureau", 5),
        ("shop", "month", 1),
        ("shop", "other", 1),
    ]
