"""Admission on a real database: quotas, drain and load decide before anything is written, and say when to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.clock import FakeClock
from core.errors import BudgetExceeded, Draining, IdempotencyConflict, Overloaded, QuotaExceeded
from core.runs.execution import Wait
from core.runs.model import Cause, Lane, RunRequest
from core.settings import Settings
from core.tenancy import Policy, Role, TenantContext
from tests.fixtures.work import Work, work_in

LIMIT = 1_000


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    async with work_in(settings.model_copy(update={"queue_limit": LIMIT}), FakeClock()) as opened:
        yield opened


async def held(work: Work, ctx: TenantContext) -> int:
    """Runs of the tenant in any state."""
    return len((await work.runs.list(ctx, limit=1_000))[0])


async def test_the_daily_quota_begins_anew_at_the_tenants_own_midnight(work: Work) -> None:
    # 09:00 UTC is 04:00 in New York.
    bank = await work.tenant("bank", Policy(daily_runs=5, timezone="America/New_York"))
    await work.submit(bank, 3)
    with pytest.raises(QuotaExceeded, match="room for 2 more runs today") as early:
        await work.submit(bank, 3)
    assert early.value.retry_after_s == 20 * 3600
    await work.submit(bank, 2)
    work.clock.advance(20 * 3600 - 1)
    with pytest.raises(QuotaExceeded, match="room for 0 more runs today"):
        await work.submit(bank, 1)
    work.clock.advance(1)
    await work.submit(bank, 5)
    assert await held(work, bank) == 10


async def test_a_clock_that_jumps_back_over_midnight_opens_no_second_quota(work: Work) -> None:
    bank = await work.tenant("bank", Policy(daily_runs=5))
    await work.submit(bank, 5)
    work.clock.advance(15 * 3600)
    await work.submit(bank, 5)
    work.clock.advance(-60)
    with pytest.raises(QuotaExceeded):
        await work.submit(bank, 1)


async def test_another_time_zone_opens_no_second_quota(work: Work) -> None:
    bank = await work.tenant("bank", Policy(daily_runs=5))
    await work.submit(bank, 4)
    work.clock.advance(2 * 3600)  # 11:00 on Monday; in Kiritimati it is Tuesday, in Niue midnight of Monday
    for zone in ("Pacific/Kiritimati", "Pacific/Niue", "Asia/Kathmandu", "Pacific/Kiritimati"):
        await work.tenants.change_policy(bank, bank.tenant_id, Policy(daily_runs=5, timezone=zone))
        moved = await work.context("bank", Role.MEMBER)
        with pytest.raises(QuotaExceeded, match="room for 1 more run today"):
            await work.submit(moved, 2)
    work.clock.advance(23 * 3600)
    await work.submit(await work.context("bank", Role.MEMBER), 5)


async def test_a_month_that_is_spent_says_when_the_next_one_begins_and_one_that_is_promised_does_not(
    work: Work,
) -> None:
    bank = await work.tenant("bank", Policy(budget_month_microusd=100, timezone="Asia/Kathmandu"))
    await work.usage.reserve(bank, "everything", 100)
    with pytest.raises(BudgetExceeded) as promised:
        await work.submit(bank, 1)
    assert promised.value.retry_after_s is None
    await work.usage.settle(bank, "everything", 100)
    with pytest.raises(BudgetExceeded) as spent:
        await work.submit(bank, 1)
    assert spent.value.retry_after_s is not None
    work.clock.advance(spent.value.retry_after_s - 1)
    with pytest.raises(BudgetExceeded):
        await work.submit(bank, 1)
    work.clock.advance(1)
    await work.submit(bank, 1)


async def test_a_full_queue_says_when_it_will_have_room_from_how_fast_it_drains(work: Work) -> None:
    bank = await work.tenant("bank", Policy(queue_depth=100, concurrency_cap=50))
    await work.submit(bank, 100)
    with pytest.raises(QuotaExceeded) as standstill:
        await work.submit(bank, 10)
    assert standstill.value.retry_after_s == 900  # nothing has started: as long as is ever said
    for _ in range(6):  # six runs a minute: one every ten seconds
        work.clock.advance(8)
        (claim,) = await work.claim("w", 1)
        await work.finish(claim)
    with pytest.raises(QuotaExceeded) as draining:
        await work.submit(bank, 10)
    assert draining.value.retry_after_s == pytest.approx(40)
    assert draining.value.details["queued"] == 94
    await work.submit(bank, 6)


async def test_open_runs_are_counted_wherever_they_stand_and_make_room_when_they_end(work: Work) -> None:
    bank = await work.tenant("bank", Policy(open_runs=5, concurrency_cap=3))
    await work.submit(bank, 4)
    first, second = await work.claim("w", 2)
    on = await work.executing(first)
    await work.execution.arm_wait(on, Wait(1, "event: go", Cause.EVENT, key="go/1"))
    await work.execution.park(on)  # one parked, one executes, two are queued
    with pytest.raises(QuotaExceeded, match=r"room for 1 more run now.*queued, executing or parked") as full:
        await work.submit(bank, 2)
    assert (full.value.details["quota"], full.value.retry_after_s) == ("open_runs", 900)
    await work.finish(second)
    with pytest.raises(QuotaExceeded) as full:
        await work.submit(bank, 4)
    assert full.value.retry_after_s == 120  # one has ended within a minute, and two must
    await work.submit(bank, 2)
    assert await held(work, bank) == 6


async def test_submissions_made_at_once_exceed_no_quota(work: Work) -> None:
    bank = await work.tenant("bank", Policy(open_runs=7, daily_runs=100))
    answers = await asyncio.gather(*(work.submit(bank, 2) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(answer, list) for answer in answers) == 3
    assert await held(work, bank) == 6


async def test_load_is_shed_from_the_lowest_lane_up_and_not_from_those_who_have_little_queued(work: Work) -> None:
    noisy = await work.tenant("noisy", Policy(queue_depth=5_000))
    quiet = await work.tenant("quiet")
    await work.submit(noisy, 700)
    work.clock.advance(2)  # depths are known for a second
    with pytest.raises(Overloaded, match="lane background") as shed:
        await work.submit(noisy, 1, lane=Lane.BACKGROUND)
    assert shed.value.retry_after_s == 900
    await work.submit(noisy, 150, lane=Lane.NORMAL)
    work.clock.advance(2)
    with pytest.raises(Overloaded, match="lane normal"):
        await work.submit(noisy, 1, lane=Lane.NORMAL)
    await work.submit(quiet, 10, lane=Lane.NORMAL)
    await work.submit(noisy, 140, lane=Lane.URGENT)
    work.clock.advance(2)
    for ctx in (noisy, quiet):
        with pytest.raises(Overloaded, match="lane urgent"):
            await work.submit(ctx, 1, lane=Lane.URGENT)
    acts = [entry.after for entry in await work.audit.recent(noisy) if entry.act == "refusal"]
    assert [act["code"] for act in acts if act is not None] == ["overloaded"] * 3


async def test_what_is_submitted_within_a_second_is_counted_to_the_platforms_limit(work: Work) -> None:
    noisy = await work.tenant("noisy", Policy(queue_depth=5_000))
    await work.submit(noisy, 500)
    await work.submit(noisy, 350)
    with pytest.raises(Overloaded, match="lane normal"):
        await work.submit(noisy, 1)


async def test_a_batch_counts_as_its_lowest_lane(work: Work) -> None:
    noisy = await work.tenant("noisy", Policy(queue_depth=5_000))
    await work.submit(noisy, 800)
    work.clock.advance(2)
    with pytest.raises(Overloaded, match="lane background"):
        await work.submit(noisy, 2, lane=Lane.BACKGROUND)
    assert await held(work, noisy) == 800


async def test_a_key_is_its_tenants_own_and_is_answered_also_when_nothing_new_is_taken(work: Work) -> None:
    bank, shop = await work.tenant("bank", Policy(daily_runs=1)), await work.tenant("shop")
    request = RunRequest("loan-approval", {"row": 1}, idempotency_key="key")
    first, created = await work.runs.submit(bank, request)
    other, too = await work.runs.submit(shop, request)
    assert (created, too, first.run_id == other.run_id) == (True, True, False)
    with pytest.raises(QuotaExceeded):
        await work.submit(bank, 1)
    await work.tenants.drain(await work.operator(), bank.tenant_id, True)
    work.clock.advance(40 * 86_400)
    again, created = await work.runs.submit(bank, request)
    assert (again.run_id, created) == (first.run_id, False)
    with pytest.raises(IdempotencyConflict):
        await work.runs.submit(bank, replace(request, input={"row": 2}))


async def test_a_drained_tenant_takes_nothing_new_while_what_is_queued_goes_on(work: Work) -> None:
    bank = await work.tenant("bank")
    operator = await work.operator()
    await work.submit(bank, 2)
    await work.tenants.drain(operator, bank.tenant_id, True)
    with pytest.raises(Draining, match="what is queued goes on") as refused:
        await work.submit(bank, 1)
    assert refused.value.retry_after_s == 60
    claims = await work.claim("w", 5)
    assert len(claims) == 2
    assert (await work.tenants.tenant(bank.tenant_id)).draining
    await work.tenants.drain(operator, bank.tenant_id, False)
    assert len(await work.submit(bank, 1)) == 1
    acts = [(entry.act, entry.after) for entry in await work.audit.recent(bank) if entry.act == "tenant.drain"]
    assert acts == [("tenant.drain", {"draining": False}), ("tenant.drain", {"draining": True})]
